"""Where every model of a stage is put and where it computes, by the name of the device that the stage gave.

`cpu:0` is a CPU too, and only whoever reads the machine's device says it so: torch itself forgets the number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from puna.core.stage import Stage
from puna.inference.fused import FusedTransformer
from puna.model.heads import ScoreModel
from puna.model.transformer import Transformer

__all__ = ["Placements", "record_placements"]

NOWHERE = "where torch puts a new model"
"""The place of a model that nobody moved."""

SHAPES_ONLY = "meta"


@dataclass
class Placements:
    """Devices by stage, as they were named."""

    loaded: dict[str, set[str]] = field(default_factory=dict)
    """Where models were moved to, or allocated."""
    computed: dict[str, set[str]] = field(default_factory=dict)
    """Where models were that read tokens."""
    stage: str = "outside of a stage"

    def elsewhere(self, device: str) -> dict[str, set[str]]:
        """Stages with a model that was put, or read tokens, on another device than this."""
        seen = {name: self.loaded.get(name, set()) | self.computed.get(name, set()) for name in self.stages}
        return {name: places - {device} for name, places in seen.items() if places - {device}}

    @property
    def stages(self) -> set[str]:
        """Those that had a model."""
        return set(self.loaded) | set(self.computed)

    def note_load(self, model: nn.Module, place: str) -> None:
        """A model and all its parts are in a place from now on."""
        for part in model.modules():
            part.__dict__["place"] = place
        self.loaded.setdefault(self.stage, set()).add(place)

    def note_computation(self, model: nn.Module) -> None:
        """A model reads tokens."""
        self.computed.setdefault(self.stage, set()).add(model.__dict__.get("place", NOWHERE))

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """What is noted meanwhile is this stage's."""
        before, self.stage = self.stage, stage
        try:
            yield
        finally:
            self.stage = before


def record_placements(monkeypatch: pytest.MonkeyPatch) -> Placements:
    """From now on: each move and allocation of a model, each forward pass, and the stage that they happen in."""
    noted = Placements()

    def in_stage(build: Callable[..., Any]) -> Callable[..., Any]:
        def call(stage: Stage[Any], *given: Any) -> Any:
            with noted.during(stage.name):
                return build(stage, *given)

        return call

    def moving(move: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: nn.Module, *given: Any, **named: Any) -> Any:
            device = named.get("device", next((g for g in given if isinstance(g, torch.device | str)), None))
            if device is not None and str(device) != SHAPES_ONLY:
                noted.note_load(model, str(device))
            return move(model, *given, **named)

        return call

    def computing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: nn.Module, *given: Any, **named: Any) -> Any:
            noted.note_computation(model)
            return forward(model, *given, **named)

        return call

    def fusing(make: Callable[..., Any]) -> Callable[..., Any]:
        """Fused copies lie beside the trained weights."""

        def call(model: nn.Module, trained: Transformer, **named: Any) -> None:
            make(model, trained, **named)
            model.__dict__["place"] = trained.__dict__.get("place", NOWHERE)

        return call

    monkeypatch.setattr(Stage, "_build", in_stage(Stage._build))
    for kind in (Transformer, ScoreModel):
        for name in ("to", "to_empty", "cuda", "cpu"):
            monkeypatch.setattr(kind, name, moving(getattr(nn.Module, name)), raising=False)
    monkeypatch.setattr(Transformer, "hidden", computing(Transformer.hidden))
    monkeypatch.setattr(FusedTransformer, "__init__", fusing(FusedTransformer.__init__))
    return noted
