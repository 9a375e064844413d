"""Metrics sent to a tracker as well: trackio or wandb, each optional and imported only when asked for."""

import importlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from puna.core.config import Settings
from puna.core.errors import ConfigError

__all__ = ["MetricsSink", "TrackerName", "TrackingConfig", "open_trackers"]

TrackerName = Literal["trackio", "wandb"]


class TrackingConfig(Settings):
    """Where metrics go besides metrics.jsonl and TensorBoard."""

    trackers: tuple[TrackerName, ...] = ()
    """Packages to send to; each must be installed. How they reach their server is their own setting."""
    project: str = Field(default="puna", min_length=1)
    """Name of the project there."""


@runtime_checkable
class MetricsSink(Protocol):
    """Takes numbers by name, step by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step; after a resumption a step may come twice."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class _Wandb:
    """A Weights & Biases run; its own step counter cannot go back, so ours is a value like the others."""

    def __init__(self, module: ModuleType, project: str, run_id: str, name: str, config: Mapping[str, Any]):
        self._run = module.init(
            project=project, id=run_id, name=name, config=dict(config), resume="allow", reinit="create_new"
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A trackio run, found again by its name."""

    def __init__(self, module: ModuleType, project: str, run_id: str, name: str, config: Mapping[str, Any]):
        self._run = module.init(
            project=project, name=f"{name}-{run_id[:8]}", config=dict(config), resume="allow", embed=False
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[str, type[_Wandb] | type[_Trackio]] = {"wandb": _Wandb, "trackio": _Trackio}


def open_trackers(
    config: TrackingConfig, *, name: str, state: Path, settings: Mapping[str, Any]
) -> list[MetricsSink]:
    """Open the run at every tracker; a resumed training goes on with the run it had.

    Args:
        name: What people call the run.
        state: The training's own folder, which keeps the run's identity until the training is done.
        settings: Shown beside the curves.
    Raises:
        ConfigError: a tracker's package is not installed.
    """
    if not config.trackers:
        return []
    modules = {tracker: _load(tracker) for tracker in dict.fromkeys(config.trackers)}
    id_file = state / "tracker_run_id"
    if not id_file.is_file():
        id_file.write_text(uuid.uuid4().hex, encoding="utf-8")
    run_id = id_file.read_text(encoding="utf-8")
    return [_KINDS[key](module, config.project, run_id, name, settings) for key, module in modules.items()]


def _load(tracker: str) -> ModuleType:
    try:
        return importlib.import_module(tracker)
    except ImportError as error:
        raise ConfigError(
            where="tracking.trackers",
            expected=f"the package {tracker} to be installed",
            got=str(error),
            fix=f"Run `pip install {tracker}`, or take it out of tracking.trackers.",
        ) from None
