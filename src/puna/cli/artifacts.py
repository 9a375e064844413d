"""`puna report`, `puna lineage` and `puna doctor`: looking at what a run left."""

from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import JsonOption, show
from puna.core.devices import hardware
from puna.core.errors import DataError
from puna.core.lineage import lineage
from puna.core.manifest import verify
from puna.core.progress import Reporter
from puna.reporting.report import build_report, earlier_title

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("report")(report)
    app.command("lineage")(show_lineage)
    app.command()(doctor)


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="Where the report goes; default: RUN/report.")] = None,
    title: Annotated[
        str, typer.Option(help="Heading of the page; default: that of the run's own report.")
    ] = "",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another run, whose training loss is drawn too (Figure 5); may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the paper's tables and figures from a run: one HTML page, Markdown and JSON.

    Example: puna report runs/quickstart
    """
    if not run.is_dir():
        raise DataError(where=str(run), expected="a run folder", got="no such folder", fix="Check the path.")
    folder = out or run / "report"
    title = title or earlier_title(run / "report") or f"puna: {run.name}"
    build_report(run, folder, title=title, beside=beside or (), reporter=Reporter())
    show({"report": str(folder / "index.html")}, str(folder / "index.html"), as_json=as_json)


def show_lineage(
    path: Annotated[Path, typer.Argument(help="An artifact folder.")],
    check: Annotated[bool, typer.Option("--verify", help="Recompute every checksum.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print where an artifact came from: stage by stage, back to the raw input.

    Example: puna lineage runs/quickstart/rlhf-v3-ppo
    """
    if check:
        verify(path)
    text = lineage(path).render()
    show({"lineage": text.splitlines()}, text, as_json=as_json)


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine offers.

    Example: puna doctor --json
    """
    facts = hardware()
    show(facts, "\n".join(f"{name}: {value}" for name, value in facts.items()), as_json=as_json)
