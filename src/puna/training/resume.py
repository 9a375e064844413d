"""Training state of one process, at once: what PPO uses; the loop's states are written beside it (checkpoints/).

Each state is a folder `step-N` that appears whole, by renaming; older ones are removed afterwards, so a kill at any
moment leaves at least one that loads, and a damaged newest one is passed over for the one before it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puna.training.checkpoints.folders import prune
from puna.training.checkpoints.state import ResumedState, generator_states, training_tensors
from puna.training.checkpoints.storage import read_newest, write
from puna.training.parallel.ranks import SINGLE

__all__ = ["ResumedState", "load_state", "save_state"]


def save_state(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    keep_last: int = 1,
) -> None:
    """Save weights, AdamW moments, torch's generators and what the caller adds; removes older states.

    Args:
        model: Any module; several models go in as one nn.ModuleDict.
        step: Updates done.
        extra: JSON values; floats come back with the same bits.
        tensors: Such as a rollout buffer.
        keep_last: States to keep, this one included.
    Raises:
        OSError: the disk is full or cannot be written; older states are untouched.
    """
    tensors = dict(tensors or {})
    state = training_tensors(model, optimizer) | generator_states()
    state |= {f"tensors.{name}": tensor for name, tensor in tensors.items()}
    write(folder, step, state, extra=dict(extra or {}), tensors=tensors, ranks=SINGLE, in_background=False)
    prune(folder, keep_last=keep_last, permanent_every_steps=None)


def load_state(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tell: Callable[[str], None] = lambda text: None,
) -> ResumedState | None:
    """Put the newest whole state into model, optimizer and torch's generators; None where there is none.

    Args:
        tell: Hears of damaged states that were passed over.
    Raises:
        CheckpointError: every state is damaged, or the newest whole one belongs to another model.
    """
    return read_newest(folder, model=model, optimizer=optimizer, ranks=SINGLE, tell=tell)
