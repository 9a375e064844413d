"""The command line inside this process, on models of toy size."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from puna.cli.main import main
from tiny_chat_models import save_world


@dataclass(frozen=True)
class Said:
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by role: model, helpfulness, safety."""
    return save_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command to its exit."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(exit_.value.code or 0), captured.out, captured.err)

    return run
