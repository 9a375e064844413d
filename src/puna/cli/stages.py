"""One command per declared stage: its inputs and choices are options, its settings a TOML file and `--set`."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from puna.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    on_machine,
    show_artifact,
)
from puna.cli.signature import REQUIRED, keyword, with_options
from puna.core.config import load_settings
from puna.core.inputs import require
from puna.core.machine import Machine
from puna.core.progress import Reporter
from puna.core.stage import Parameter, Stage
from puna.training.signals import preemptible

__all__ = ["StageCommand", "add_stage"]


@dataclass(frozen=True, kw_only=True)
class StageCommand:
    """How a stage appears on the command line, beyond what its declaration says."""

    name: str
    stage: Stage[Any]
    example: str
    """A whole command line, shown by --help."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> option, where the option has another name."""
    fixed: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    """Parameters that the command line gives by itself, such as simulated annotators."""
    roles: Mapping[str, bool] = field(default_factory=lambda: {"helpfulness": True, "safety": True})
    """Of an input by role: the roles that are options, and whether each must be given."""


def add_stage(app: typer.Typer, command: StageCommand) -> None:
    """Add a stage's command to a group."""
    options = [
        option
        for parameter in command.stage.parameters
        if parameter.role != "aside" and parameter.name not in command.fixed
        for option in _options(parameter, command)
    ]
    common = [
        keyword("out", OutOption),
        keyword("config", ConfigOption, None),
        keyword("set_", SetOption, None),
        keyword("seed", SeedOption, 0),
        keyword("device", DeviceOption, None),
        keyword("threads", ThreadsOption, None),
        keyword("as_json", JsonOption, False),
    ]

    def run(**given: Any) -> None:
        _run(command, given)

    first = (inspect.getdoc(command.stage.build) or "").split("\n\n")[0]
    doc = escape(f"{first}\n\nExample: {command.example}")  # rich would take [words] for its markup
    function = with_options(run, [*options, *common], name=command.name, doc=doc)
    app.command(command.name)(function)


def _run(command: StageCommand, given: Mapping[str, Any]) -> None:
    """Read the settings, make the artifact, print it. A model's version is the name of its folder."""
    started = time.monotonic()
    stage, machine = command.stage, on_machine(Machine(), given["device"], given["threads"])
    machine.apply()
    config = load_settings(given["config"], stage.config_class, given["set_"] or ())
    values = {
        parameter.name: _value(parameter, command, given)
        for parameter in stage.parameters
        if parameter.role != "aside"
    }
    out: Path = given["out"]
    labels = {"version": out.resolve().name} if stage.kind == "model" else {}
    with preemptible():
        manifest = stage(
            config,
            out=out,
            seed=given["seed"],
            machine=machine,
            reporter=Reporter(),
            labels=labels,
            **values,
        )
    show_artifact(out, manifest, f"{manifest.kind}: {out}", started=started, as_json=given["as_json"])


def _value(parameter: Parameter, command: StageCommand, given: Mapping[str, Any]) -> Any:
    """A parameter's value from the options; every path is looked up before anything starts."""
    if parameter.name in command.fixed:
        return command.fixed[parameter.name]()
    if parameter.role == "inputs_by_name":
        chosen = {role: given[f"{parameter.name}_{role}"] for role in command.roles}
        return {role: require(path, f"the {role} folder") for role, path in chosen.items() if path}
    value = given[parameter.name]
    if parameter.role == "input" and value is not None:
        return require(value, parameter.name)
    if parameter.role == "inputs":
        return [require(path, parameter.name) for path in value or ()]
    return value


def _options(parameter: Parameter, command: StageCommand) -> list[inspect.Parameter]:
    flag = "--" + command.options.get(parameter.name, parameter.name).replace("_", "-")
    default = REQUIRED if parameter.is_required else parameter.default
    if parameter.role == "inputs_by_name":
        return [
            keyword(
                f"{parameter.name}_{role}",
                Annotated[
                    Path if is_needed else Path | None,
                    typer.Option(f"--{role}", help=f"The {role} reward model's folder."),
                ],
                REQUIRED if is_needed else None,
            )
            for role, is_needed in command.roles.items()
        ]
    if parameter.role == "input":
        kind: Any = Path if parameter.is_required else Path | None
    elif parameter.role == "inputs":
        kind, default = (list[Path], default) if parameter.is_required else (list[Path] | None, None)
    else:
        kind = parameter.annotation
    help_ = escape(parameter.help) + (" May be repeated." if parameter.role == "inputs" else "")
    metavar = "PATH" if parameter.role in ("input", "inputs") else None
    return [
        keyword(parameter.name, Annotated[kind, typer.Option(flag, help=help_, metavar=metavar)], default)
    ]
