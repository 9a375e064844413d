"""Training states written beside the training: a copy is taken between two updates, a thread takes it to the disk.

What can go wrong on a disk stops nothing: it is told, recorded, and the older states stay. Locking rule: the thread
touches the copy, its folder, `last_written` and the background process group only; `_pending` belongs to the training
thread.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from puna.training.checkpoints.folders import prune, saved_states, set_aside, step_of
from puna.training.checkpoints.safeguards import Safeguards
from puna.training.checkpoints.state import ResumedState, generator_states, training_tensors
from puna.training.checkpoints.storage import read_newest, write
from puna.training.parallel.ranks import Ranks

__all__ = ["Checkpointer"]


class Checkpointer:
    """Saves and loads the states of one training; use it as a context, which waits for the last write."""

    def __init__(
        self,
        folder: Path,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        safeguards: Safeguards,
        tell: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._model, self._optimizer = model, optimizer
        self._ranks, self._safeguards, self._tell = ranks, safeguards, tell
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[None]] | None = None
        self._stager: DefaultStager | None = None
        self.failures: list[tuple[int, str]] = []
        """States that could not be written: step and reason; the loop records and clears them."""
        self.last_written: int | None = None
        """Step of the newest state that this process has on the disk; for people to see."""

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            self._executor.shutdown()
            if self._stager is not None:
                self._stager.close()

    def load(self) -> ResumedState | None:
        """The newest whole state, put into model, optimizer and generators; None where there is none."""
        self.wait()
        return read_newest(
            self._folder, model=self._model, optimizer=self._optimizer, ranks=self._ranks, tell=self._tell
        )

    def save(self, step: int, extra: Mapping[str, Any], *, waits: bool = False) -> None:
        """Save now; returns when the copy is taken, or with `waits` when the state is on the disk."""
        self.wait()
        state = training_tensors(self._model, self._optimizer) | generator_states()
        if waits or not self._safeguards.is_asynchronous:
            future: Future[None] = Future()
            try:
                self._write(step, state, extra, in_background=False)
                future.set_result(None)
            except OSError as error:
                future.set_exception(error)
            self._pending = step, future
            self.wait()
        else:
            copy = self._copied(state)
            self._pending = step, self._executor.submit(self._write, step, copy, extra, in_background=True)

    def distrust(self, first_step: int) -> None:
        """Set aside the states from this update on: the losses say that their weights are no good."""
        self.wait()
        for state in saved_states(self._folder) if self._ranks.is_writer else ():
            if step_of(state) >= first_step:
                set_aside(state)

    def wait(self) -> None:
        """Until the last state is on the disk, or is known not to be."""
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except OSError as error:
            reason = error.strerror or str(error)
            self.failures.append((step, reason))
            self._tell(
                f"WARNING: the training state of update {step} could not be written to {self._folder}: {reason}. "
                "Training goes on and the older state is untouched; free disk space."
            )

    def _write(
        self, step: int, state: Mapping[str, Tensor], extra: Mapping[str, Any], *, in_background: bool
    ) -> None:
        write(
            self._folder, step, state, extra=extra, tensors={}, ranks=self._ranks, in_background=in_background
        )
        self.last_written = step
        if self._ranks.is_writer:
            prune(
                self._folder,
                keep_last=self._safeguards.keep_last,
                permanent_every_steps=self._safeguards.permanent_every_steps,
            )

    def _copied(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """In main memory. On CUDA the copy is pinned and its memory kept; on a CPU it is given back after the write."""
        is_cuda = any(tensor.is_cuda for tensor in state.values())
        stager = self._stager or DefaultStager(StagingOptions(is_cuda, False, False, is_cuda))
        copied = stager.stage(state)
        if isinstance(copied, Future):
            copied = copied.result()
        if is_cuda:
            self._stager = stager
            torch.cuda.synchronize()
        else:
            stager.close()
        return dict(copied)
