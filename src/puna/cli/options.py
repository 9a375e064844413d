"""Options that every command shares, and the one way to print a result."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from puna.core.devices import peak_rss_bytes
from puna.core.machine import Machine
from puna.core.manifest import Manifest

__all__ = [
    "ConfigOption",
    "DeviceOption",
    "JsonOption",
    "OutOption",
    "SeedOption",
    "SetOption",
    "ThreadsOption",
    "on_machine",
    "show",
    "show_artifact",
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with the stage's settings; what it leaves out takes the paper's value, else ours.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the results; made when missing.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Every random choice follows from it.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Override one setting, such as loop.batch_size=16; may be repeated.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads for arithmetic; results are the same to the last bit only at the same number.",
    ),
]


def on_machine(machine: Machine, device: str | None, threads: int | None) -> Machine:
    """A recipe's machine with what the command line says of it."""
    given = {"device": device, "threads": threads}
    return machine.model_copy(update={name: value for name, value in given.items() if value is not None})


def show_artifact(out: Path, manifest: Manifest, text: str, *, started: float, as_json: bool) -> None:
    """What a command says of the artifact that it made.

    Args:
        started: `time.monotonic()` when the command began.
    """
    result = {
        "artifact": str(out),
        "metrics": manifest.metrics,
        "wall_seconds": round(time.monotonic() - started, 2),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    show(result, text, as_json=as_json)


def show(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print for people, or one JSON line for scripts."""
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text)
