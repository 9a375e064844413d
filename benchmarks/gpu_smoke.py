"""Each stage of the tiny recipe on CUDA and on the CPU: what they learned and measured, beside each other.

Every stage is run twice from the same inputs, those that the CPU made, so no difference is carried from one stage to
the next. Losses should agree up to rounding. Sampled answers differ after the first near tie, so numbers of samples are
only similar. Nothing is timed.

    STAGE.METRIC    ours: on the device, peer: on the CPU, ratio: one over the other

Needs CUDA: exits with code 2 without it. `--device cpu` runs the CPU against itself, which tests this script. Written
without a GPU at hand.
"""

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Figure, commit, finish, hardware

from puna.core.config import load_recipe
from puna.core.machine import Machine
from puna.core.progress import quiet
from puna.recipe.figure4 import plan_figure4
from puna.recipe.settings import Figure4Recipe
from puna.recipe.steps import Step

TINY = Path(__file__).parents[1] / "tests" / "end_to_end" / "tiny.toml"
COLUMNS = "{:<62}{:>14}{:>14}{:>12}"


def beside(device: str, root: Path, overrides: list[str], *, seed: int) -> Iterator[Figure]:
    """Each step of the plan on the CPU, then again on the device from what the CPU has made so far."""
    recipe = load_recipe(TINY, Figure4Recipe, overrides)
    for step in plan_figure4(recipe, out=root / "cpu", seed=seed):
        name = step.out.relative_to(root / "cpu").as_posix()
        peer = step.job(Machine(device="cpu"))(reporter=quiet())
        again: Step = replace(step, out=root / "device" / name)
        ours = again.job(Machine(device=device))(reporter=quiet())
        yield from _figures(name, ours.metrics, peer.metrics)
        shutil.rmtree(again.out)


def _figures(name: str, ours: Mapping[str, Any], peer: Mapping[str, Any]) -> Iterator[Figure]:
    mine, theirs = dict(_numbers(name, ours)), dict(_numbers(name, peer))
    for key in sorted(mine.keys() & theirs.keys()):
        yield Figure(
            name=key,
            ours=mine[key],
            peer=theirs[key],
            ratio=mine[key] / theirs[key] if theirs[key] else float(mine[key] == theirs[key]),
            unit="as the stage's manifest has it",
            n=1,
            spread=0.0,
            hardware=hardware(),
            commit=commit(),
        )


def _numbers(name: str, metrics: Any) -> Iterator[tuple[str, float]]:
    """Losses, accuracies, scores and counts; times, memory and energy are no results."""
    if isinstance(metrics, Mapping):
        for key, value in metrics.items():
            if key != "system" and not key.endswith(("_seconds", "_bytes", "_kwh", "_per_second")):
                yield from _numbers(f"{name}.{key}", value)
    elif isinstance(metrics, int | float) and not isinstance(metrics, bool) and math.isfinite(metrics):
        yield name, float(metrics)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to test this script")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="a smaller recipe")
    options.add_argument("--save", action="store_true", help="also write benchmarks/results/")
    return options.parse_args()


def main() -> None:
    """Run every stage on both and print what differs."""
    given = _options()
    if given.device != "cpu" and not torch.cuda.is_available():
        sys.stderr.write(
            "gpu_smoke: expected a CUDA device, got none. Run it on a machine with a GPU and a CUDA build of torch.\n"
        )
        raise SystemExit(2)
    Machine(device=given.device, threads=1).apply()  # one step after another, in this process
    figures = []
    print(COLUMNS.format("", given.device, "cpu", "difference"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for figure in beside(given.device, Path(folder), given.set, seed=given.seed):
            figures.append(figure)
            values = (f"{figure.ours:.6g}", f"{figure.peer:.6g}", f"{figure.ours - figure.peer:.2g}")
            print(COLUMNS.format(figure.name, *values), flush=True)
    finish("gpu_smoke", figures, save=given.save, device=given.device, seed=given.seed)


if __name__ == "__main__":
    main()
