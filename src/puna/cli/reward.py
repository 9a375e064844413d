"""`puna reward`: the group, and the command that scores responses and comparisons."""

import json
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import DeviceOption, JsonOption, ThreadsOption, on_machine, show
from puna.core.machine import Machine
from puna.reward_modeling.scoring import score_file

__all__ = ["app"]

app = typer.Typer(help="Train a reward model, or score with one.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Keeps `score` a subcommand of its own."""


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A reward model folder.")],
    data: Annotated[Path, typer.Option(help="JSON Lines of samples or of comparisons.")],
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Scores in logits: one per sample, two per comparison (chosen, rejected).

    Example: puna reward score runs/quickstart/reward/helpfulness-3 --data comparisons.jsonl --json
    """
    machine = on_machine(Machine(), device, threads)
    machine.apply()
    scores = score_file(model, data, device=machine.torch_device)
    show({"scores": scores}, "\n".join(json.dumps(value) for value in scores), as_json=as_json)
