"""`puna quickstart` and `puna run`: Figure 4 from a recipe."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import DeviceOption, JsonOption, SeedOption, SetOption, ThreadsOption, on_machine
from puna.core.config import load_recipe
from puna.core.devices import peak_rss_bytes
from puna.core.errors import ConfigError
from puna.core.progress import Reporter
from puna.recipe.figure4 import raise_llama
from puna.recipe.settings import Figure4Recipe, builtin_recipe
from puna.reporting.summary import quickstart_summary
from puna.training.parallel.torchrun import is_torchrun
from puna.training.signals import preemptible

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(quickstart)
    app.command("run")(run_recipe)


def quickstart(
    out: Annotated[
        Path, typer.Option(help="Folder of the run; the same folder again resumes or skips.")
    ] = Path("runs/quickstart"),
    seed: SeedOption = 0,
    set_: SetOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole recipe on the embedded sandbox, in minutes on two cores; ends in a report and a chat model.

    Example: puna quickstart --out runs/quickstart --json
    """
    _run(builtin_recipe("sandbox_cpu"), out, seed, set_, None, device, threads, as_json)


def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="A TOML recipe, or the name of one that puna ships.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Stop after this stage, such as pretraining, sft, rlhf-v1, evaluation or report."),
    ] = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe from raw text to a chat model; a run that was stopped goes on where it was.

    Example: puna run recipes/real_cpu.toml --out runs/real --set pretraining.loop.total_steps=500
    """
    path = recipe if recipe.suffix == ".toml" else builtin_recipe(str(recipe))
    _run(path, out or Path("runs") / path.stem, seed, set_, until, device, threads, as_json)


def _run(
    path: Path,
    out: Path,
    seed: int,
    overrides: list[str] | None,
    until: str | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    started = time.monotonic()
    if is_torchrun():
        raise ConfigError(
            where="puna run",
            expected="one process",
            got="several, started by torchrun",
            fix="Start it without torchrun; puna pretrain is the command for many processes.",
        )
    recipe = load_recipe(path, Figure4Recipe, overrides or ())
    recipe = recipe.model_copy(update={"machine": on_machine(recipe.machine, device, threads)})
    recipe.machine.apply()
    with preemptible():
        raise_llama(recipe, out=out, seed=seed, reporter=Reporter(), until=until)
    if until and until != "report":
        summary: dict = {"run": str(out), "until": until}
    else:
        summary = quickstart_summary(out)
    summary |= {"wall_seconds": round(time.monotonic() - started, 2), "peak_rss_bytes": peak_rss_bytes()}
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(_farewell(out, summary))


def _farewell(out: Path, summary: dict) -> str:
    if "chat_model" not in summary:
        return f"Stopped after {summary['until']}; the same command without --until goes on."
    return (
        f"Report: {summary['report']}\n"
        f"Talk to it: puna chat {summary['chat_model']}\n"
        f"Where it came from: puna lineage {summary['chat_model']}"
    )
