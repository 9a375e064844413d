"""Training state on disk: what exact resumption needs and a model artifact does not (torch.distributed.checkpoint).

Each state is a folder `step-N` that appears whole, by renaming; the one before it is removed afterwards, so a
kill at any moment leaves at least one that loads.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from puna.core.errors import CheckpointError
from puna.core.storage import sync

__all__ = ["ResumedState", "load_state", "save_state"]

_FACTS_FILE = "state.json"
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


def save_state(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Save weights, AdamW moments, torch's generators and what the caller adds; replaces an older state.

    Args:
        model: Any module; several models go in as one nn.ModuleDict.
        step: Updates done.
        extra: JSON values; floats come back with the same bits.
        tensors: Such as a rollout buffer.
    Raises:
        OSError: the disk is full or cannot be written; older states are untouched.
    """
    extra, tensors = dict(extra or {}), dict(tensors or {})
    partial, final = folder / f".step-{step}.partial", folder / f"step-{step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
    (partial / _FACTS_FILE).write_text(json.dumps({"step": step, "extra": extra, "tensors": shapes}))
    state = _training_tensors(model, optimizer) | _generator_states()
    state |= {f"tensors.{name}": tensor for name, tensor in tensors.items()}
    writer = dcp.FileSystemWriter(partial, sync_files=True)
    _single_process(lambda: dcp.save(state, storage_writer=writer, no_dist=True))
    shutil.rmtree(final, ignore_errors=True)
    sync(partial)
    partial.rename(final)
    sync(folder)
    for older in folder.glob("step-*"):
        if older != final:
            shutil.rmtree(older)


def load_state(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> ResumedState | None:
    """Put the latest state into model, optimizer and torch's generators; None where there is none.

    Raises:
        CheckpointError: the state is damaged or belongs to another model.
    """
    saved = max(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")), default=None)
    if saved is None:
        return None
    try:
        facts = json.loads((saved / _FACTS_FILE).read_text())
        tensors = {name: _blank(*spec) for name, spec in facts["tensors"].items()}
        state = _training_tensors(model, optimizer) | _generator_states()
        state |= {f"tensors.{name}": tensor for name, tensor in tensors.items()}
        reader = dcp.FileSystemReader(saved)
        _single_process(lambda: dcp.load(state, storage_reader=reader, no_dist=True))
    except (OSError, ValueError, KeyError, CheckpointException) as error:
        raise CheckpointError(
            where=str(saved),
            expected="a whole training state of this model",
            got=_root_cause(error),
            fix="Remove this folder to train again from the start of the stage.",
        ) from None
    for name, value in state.items():
        if name.startswith("generator."):
            _restore_generator(name.removeprefix("generator."), value)
    return ResumedState(step=facts["step"], extra=facts["extra"], tensors=tensors)


def _training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
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


def _generator_states() -> dict[str, Tensor]:
    states = {"generator.cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        states[f"generator.{index}"] = torch.cuda.get_rng_state(index)
    return states


def _restore_generator(name: str, state: Tensor) -> None:
    if name == "cpu":
        torch.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, int(name))


def _blank(shape: list[int], dtype: str) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype))


def _single_process(action: Callable[[], Any]) -> None:
    """Run a checkpoint action, quiet about the absent process group, and unwrap a full disk or a Ctrl-C."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is")
            action()
    except CheckpointException as error:
        for cause in _causes(error):
            if isinstance(cause, OSError | KeyboardInterrupt):
                raise cause from None
        raise


def _causes(error: CheckpointException) -> list[BaseException]:
    causes: list[BaseException] = []
    for cause, _ in error.failures.values():
        link: BaseException | None = cause
        while link is not None:
            causes.append(link)
            link = link.__cause__ or link.__context__
    return causes


def _root_cause(error: BaseException) -> str:
    causes = _causes(error) if isinstance(error, CheckpointException) else [error]
    return f"{type(causes[0]).__name__}: {causes[0]}"
