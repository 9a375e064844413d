"""What exact resumption needs, by name: weights, moments, generators, and what the caller adds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puna.core.storage import sync

__all__ = [
    "Facts",
    "ResumedState",
    "generator_states",
    "read_facts",
    "restore_generators",
    "training_tensors",
    "write_facts",
]

FACTS_FILE = "state.json"
_SLOTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class ResumedState:
    """What was saved beside the weights and the optimizer."""

    step: int
    """Updates done."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON values given to save_state."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors given to save_state."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reader must know before the tensors: state.json."""

    step: int
    extra: dict[str, Any]
    shapes: dict[str, tuple[list[int], str]]

    def blank_tensors(self) -> dict[str, Tensor]:
        """Room for the caller's tensors."""
        return {
            name: torch.empty(shape, dtype=getattr(torch, dtype))
            for name, (shape, dtype) in self.shapes.items()
        }


def write_facts(folder: Path, step: int, extra: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Floats come back with the same bits."""
    shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
    path = folder / FACTS_FILE
    path.write_text(json.dumps({"step": step, "extra": dict(extra), "tensors": shapes}), encoding="utf-8")
    sync(path)


def read_facts(folder: Path) -> Facts:
    """Raises OSError, ValueError or KeyError where the file is not one of ours."""
    values = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    shapes = {name: (shape, dtype) for name, (shape, dtype) in values["tensors"].items()}
    return Facts(values["step"], values["extra"], shapes)


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and moments by name, sharing memory with their owners; moments are made where there are none."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) not in optimized:
            continue
        slots = optimizer.state[parameter]
        if not slots:
            slots["exp_avg"] = torch.zeros_like(parameter)
            slots["exp_avg_sq"] = torch.zeros_like(parameter)
            slots["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state |= {f"optimizer.{name}.{slot}": slots[slot] for slot in _SLOTS}
    return state


def generator_states() -> dict[str, Tensor]:
    """torch's generators of this process: the CPU's, and its own CUDA device's."""
    states = {"generator.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["generator.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(state: Mapping[str, Tensor]) -> None:
    """Continue the streams that `generator_states` recorded; one that this machine lacks is left out."""
    torch.set_rng_state(state["generator.cpu"])
    if "generator.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["generator.cuda"])
