"""`puna`: one command per stage.

Exit 0: done, or stopped by SIGTERM (the same command resumes). 2: bad input or settings. 130: Ctrl-C (the same command
resumes).
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import typer

from puna import __version__
from puna.cli import (
    ablate,
    artifacts,
    convert,
    generate,
    plan,
    pretrain,
    reward,
    run,
    stage_commands,
    tokenizer,
)
from puna.core.errors import Preempted, RecipeError
from puna.core.storage import storage_errors

__all__ = ["app", "main"]

INTERRUPTED = 130
"""128 plus the number of SIGINT, as shells count."""

app = typer.Typer(
    name="puna",
    help="Raise a Llama 2: raw text in, a measured and safe chat model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
run.register(app)
ablate.register(app)
pretrain.register(app)
generate.register(app)
artifacts.register(app)
convert.register(app)
plan.register(app)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(reward.app, name="reward")
stage_commands.register(app, {"reward": reward.app})


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    """Raise a Llama 2: raw text in, a measured and safe chat model out."""
    if version:
        typer.echo(f"puna {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; what the user can mend becomes one message and exit code 2, never a traceback."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the tokenizer refuses what is not text
    try:
        with storage_errors("this command"):
            app(args=list(arguments) if arguments is not None else None)
    except RecipeError as error:
        sys.stderr.write(f"puna: {error}\n")
        sys.exit(error.exit_code)
    except Preempted as stop:
        sys.stderr.write(f"puna: {stop}\n")
        sys.exit(stop.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            sys.stderr.write("puna: stopped; run the same command again to resume.\n")
        raise
    return 0
