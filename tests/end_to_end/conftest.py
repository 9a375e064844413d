"""One finished run of the tiny recipe for all tests here, and the command line inside this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from end_to_end.program import TINY, Ended, Run, copy_until, puna
from puna.cli.main import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`puna run tiny.toml` from nothing to the report."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    return Run(folder, puna("run", TINY, "--out", folder, "--json"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """A command inside this process, without the seconds that a new one needs to load."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Path:
    """A finished run of one's own, without the report."""
    return copy_until(finished.folder, tmp_path / "run", "report")
