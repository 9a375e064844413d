"""Writing and reading one training state, by one process or by all of them together (torch.distributed.checkpoint)."""

import errno
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from puna.core.errors import CheckpointError
from puna.core.storage import is_failed_write
from puna.training.checkpoints.checksums import damage, hash_share, write_checksums
from puna.training.checkpoints.folders import partial_folder, publish, saved_states, set_aside
from puna.training.checkpoints.state import (
    ResumedState,
    generator_states,
    read_facts,
    restore_generators,
    training_tensors,
    write_facts,
)
from puna.training.parallel.ranks import Ranks

__all__ = ["read_newest", "write"]


def write(
    folder: Path,
    step: int,
    state: Mapping[str, Tensor],
    *,
    extra: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    ranks: Ranks,
    in_background: bool,
) -> None:
    """Write `folder/step-N` with every process's pieces; it is published when all of them have finished.

    Raises:
        OSError: on every process, where it happened on any: the disk is full or cannot be written. Older states
            are untouched.
    """

    def together(action: Callable[[], Any]) -> list[Any]:
        """Do a part of the work everywhere; a failure anywhere is one everywhere."""
        error, value = None, None
        try:
            value = action()
        except OSError as failed:
            error = failed
        outcomes = ranks.gather((error, value), in_background=in_background)
        if failures := [failed for failed, _ in outcomes if failed is not None]:
            raise failures[0]
        return [value for _, value in outcomes]

    partial = folder / f".step-{step}.partial"
    group = ranks.checkpoint_group(in_background=in_background)
    try:
        together(lambda: _begin(folder, step, extra, tensors) if ranks.is_writer else None)
        writer = dcp.FileSystemWriter(partial, sync_files=True)
        together(
            lambda: _quietly(
                lambda: dcp.save(
                    dict(state), storage_writer=writer, process_group=group, no_dist=ranks.size == 1
                )
            )
        )
        shares = together(lambda: hash_share(partial, rank=ranks.rank, size=ranks.size))
        checksums = {name: entry for share in shares for name, entry in share.items()}
        together(lambda: _finish(partial, checksums) if ranks.is_writer else None)
    except OSError:
        if ranks.is_writer:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def read_newest(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    tell: Callable[[str], None],
) -> ResumedState | None:
    """Load the newest state that is whole; None where there is none. States that are damaged are set aside.

    Args:
        tell: Hears of every damaged state, with the file and the reason.
    Raises:
        CheckpointError: every state is damaged, or the newest whole one belongs to another model.
    """
    names = ranks.gather([path.name for path in saved_states(folder)])[0]
    reasons: list[str] = []
    for name in names:
        found = ranks.gather(damage(folder / name, rank=ranks.rank, size=ranks.size))
        reason = next((text for text in found if text is not None), None)
        if reason is None:
            for damaged in names[: len(reasons)] if ranks.is_writer else ():
                set_aside(folder / damaged)
            if reasons:
                tell(f"training state {name} is whole: going on from it")
            return _read(folder / name, model, optimizer, ranks)
        reasons.append(f"{name}: {reason}")
        tell(f"training state {reasons[-1]}; trying the one before it")
    if not names:
        return None
    raise CheckpointError(
        where=str(folder / names[0]),
        expected="a whole training state",
        got="; ".join(reasons),
        fix="No state is left to go on from. Restore one, or remove this folder to train from the start.",
    )


def _begin(folder: Path, step: int, extra: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    write_facts(partial_folder(folder, step), step, extra, tensors)


def _finish(partial: Path, checksums: Mapping[str, tuple[str, int]]) -> None:
    write_checksums(partial, checksums)
    publish(partial)


def _read(saved: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> ResumedState:
    try:
        facts = read_facts(saved)
        tensors = facts.blank_tensors()
        reader = dcp.FileSystemReader(saved)
        stored = reader.read_metadata().state_dict_metadata
        generators = {name: value for name, value in generator_states().items() if name in stored}
        state = training_tensors(model, optimizer) | generators
        _require_same_shapes(state, stored)
        state |= {f"tensors.{name}": tensor for name, tensor in tensors.items()}
        group = ranks.checkpoint_group(in_background=False)
        _quietly(lambda: dcp.load(state, storage_reader=reader, process_group=group, no_dist=ranks.size == 1))
    except (OSError, ValueError, KeyError, CheckpointException) as error:
        raise CheckpointError(
            where=str(saved),
            expected="a training state of this model",
            got=_root_cause(error),
            fix="Give the model its old sizes back, choose another output folder, or remove this one to train again.",
        ) from None
    restore_generators(state)
    return ResumedState(step=facts.step, extra=facts.extra, tensors=tensors)


def _require_same_shapes(state: Mapping[str, Tensor], stored: Mapping[str, Any]) -> None:
    """Name the tensor by which another architecture shows."""
    for name, tensor in state.items():
        if name not in stored:
            raise ValueError(f"no {name} in it")
        size = getattr(stored[name], "size", None)
        if size is not None and tuple(size) != tuple(tensor.shape):
            raise ValueError(f"{name} of shape {tuple(size)}, where the model has {tuple(tensor.shape)}")
    if extra := sorted(name for name in stored if name.startswith("model.") and name not in state):
        raise ValueError(f"also {extra[0]}, which the model does not have")


def _quietly(action: Callable[[], Any]) -> None:
    """Run a checkpoint action, quiet about an absent process group, and unwrap a full disk or a Ctrl-C."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is")
            action()
    except CheckpointException as error:
        for cause in _causes(error):
            if isinstance(cause, OSError | KeyboardInterrupt):
                raise cause from None
            if is_failed_write(cause):
                raise OSError(errno.ENOSPC, str(cause).splitlines()[0]) from None
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
    return f"{type(causes[0]).__name__}: {causes[0]}" if not isinstance(error, ValueError) else str(error)
