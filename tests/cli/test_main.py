"""Exit codes, help, and that errors are messages."""

import errno
import re
from collections.abc import Iterator

import pytest
from typer.core import TyperCommand as Command
from typer.core import TyperGroup as Group
from typer.main import get_command

from puna import __version__
from puna.cli import main as module
from puna.core.errors import NumericsError

COMMANDS = [
    "quickstart",
    "run",
    "ablate",
    "pretrain",
    "generate",
    "chat",
    "convert",
    "plan",
    "report",
    "lineage",
    "doctor",
    "sft",
    "evaluate",
]
GROUPS = ["tokenizer", "reward", "data", "rlhf", "gatt", "safety", "prefer"]
SUBCOMMANDS = [["tokenizer", "encode"], ["tokenizer", "info"], ["tokenizer", "train"], ["reward", "score"]]
ALL = [[name] for name in COMMANDS + GROUPS] + SUBCOMMANDS


def test_these_are_the_commands() -> None:
    assert set(get_command(module.app).commands) == {*COMMANDS, *GROUPS}


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_explains_itself(say, command: list[str]) -> None:
    said = say(*command, "--help")
    assert said.exit_code == 0
    assert said.stderr == ""
    is_group = command[0] in GROUPS and len(command) == 1
    assert is_group or "Example:" in said.stdout
    assert " . " not in said.stdout, (
        "the terminal takes words in brackets for a style and prints none of them"
    )


def commands_of(group: Group, *path: str) -> Iterator[tuple[list[str], Command]]:
    """Every command and group, with the words that call it."""
    for name, command in group.commands.items():
        yield [*path, name], command
        if isinstance(command, Group):
            yield from commands_of(command, *path, name)


@pytest.mark.parametrize(
    ("words", "command"),
    [pytest.param(w, c, id=" ".join(w)) for w, c in commands_of(get_command(module.app))],
)
def test_help_shows_what_stands_in_square_brackets(say, words: list[str], command: Command) -> None:
    """Rich reads [word] as markup and leaves it out, unless it is escaped."""
    texts = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
    bracketed = {word for text in texts for word in re.findall(r"\[[A-Za-z_.]+\]", text)}
    shown = say(*words, "--help").stdout
    assert {word for word in bracketed if word not in shown} == set()


def test_version(say) -> None:
    said = say("--version")
    assert (said.exit_code, said.stdout) == (0, f"puna {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["tokenizer"], ["reward"]], ids=["puna", "tokenizer", "reward"])
def test_without_a_command_help_is_shown(say, arguments: list[str]) -> None:
    said = say(*arguments)
    assert "Usage" in said.stdout + said.stderr


def test_doctor_says_what_there_is(say) -> None:
    said = say("doctor")
    assert said.exit_code == 0
    assert said.stdout.count(": ") > 3


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(module, "app", fails)


def test_what_the_user_can_mend_is_one_line_and_code_2(say, monkeypatch: pytest.MonkeyPatch) -> None:
    error = NumericsError(where="update 7", expected="a finite loss", got="nan", fix="Lower peak_lr.")
    fail_with(monkeypatch, error)
    said = say("doctor")
    assert said.exit_code == 2
    assert said.stderr == "puna: update 7: expected a finite loss, got nan. Lower peak_lr.\n"


def test_a_full_disk_is_code_2_in_every_command(say, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, OSError(28, "No space left on device"))
    said = say("doctor")
    assert said.exit_code == 2
    assert "Free disk space" in said.stderr


def test_a_read_only_file_system_is_not_called_a_full_disk(say, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, OSError(errno.EROFS, "Read-only file system", "/mnt/x"))
    said = say("doctor")
    assert said.exit_code == 2
    assert "can be written" in said.stderr
    assert "Free disk space" not in said.stderr


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        module.main(["doctor"])


def test_ctrl_c_says_how_to_go_on(say, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, SystemExit(130))
    said = say("doctor")
    assert said.exit_code == 130
    assert "run the same command again" in said.stderr
