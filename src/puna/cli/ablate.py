"""`puna ablate`: the paper's ablations (App. A.2.1) from a recipe."""

import time
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import DeviceOption, JsonOption, SeedOption, SetOption, ThreadsOption, on_machine, show
from puna.core.config import load_recipe
from puna.core.devices import peak_rss_bytes
from puna.core.progress import Reporter
from puna.recipe.ablation import run_ablation
from puna.recipe.ablation_settings import AblationRecipe
from puna.recipe.settings import builtin_recipe

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ablate)


def ablate(
    recipe: Annotated[
        Path, typer.Argument(help="A TOML recipe, or the name of one under recipes/ablations.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run; several recipes may share one, and its report.")
    ] = Path("runs/ablations"),
    seed: SeedOption = 0,
    set_: SetOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe's variants on the same text, measure them alike, and draw the paper's tables from it.

    Example: puna ablate attention --out runs/ablations
    """
    started = time.monotonic()
    path = recipe if recipe.suffix == ".toml" else builtin_recipe(f"ablations/{recipe}")
    settings = load_recipe(path, AblationRecipe, set_ or ())
    settings = settings.model_copy(update={"machine": on_machine(settings.machine, device, threads)})
    settings.machine.apply()
    run_ablation(settings, out=out, seed=seed, reporter=Reporter())
    report = out / "report" / "index.html"
    result = {
        "report": str(report),
        "variants": {name: str(out / settings.compares / name / "model") for name in settings.variants},
        "wall_seconds": round(time.monotonic() - started, 2),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    show(result, f"Report: {report}", as_json=as_json)
