"""Lines of metrics and messages of one training, written by one of its processes."""

from dataclasses import dataclass
from typing import Any

from puna.core.artifacts import StageContext
from puna.core.config import resolve
from puna.core.errors import StorageError
from puna.core.trackers import open_trackers
from puna.training.config import LoopConfig
from puna.training.interval import Update
from puna.training.parallel.ranks import Ranks
from puna.training.run_state import RunState

__all__ = ["Journal"]


@dataclass(frozen=True, slots=True)
class Journal:
    """Silent on every process but the writer."""

    context: StageContext
    ranks: Ranks

    def open(self, config: LoopConfig, *, n_done: int, description: str) -> None:
        """Forget the lines after the state that the run resumes from, and start the trackers."""
        if not self.ranks.is_writer:
            return
        self.forget_after(n_done)
        trackers = open_trackers(
            self.context.machine.tracking,
            name=description,
            state=self.context.state,
            settings=resolve(config),
        )
        self.context.metrics.attach(trackers)

    def forget_after(self, n_done: int) -> None:
        """Drop the lines of later updates: they are made again."""
        if self.ranks.is_writer:
            self.context.metrics.truncate_after(n_done)

    def write(self, n_done: int, split: str, **values: float | str | None) -> None:
        """One line of metrics; a full disk is told and stops nothing, as what waits is written later."""
        if not self.ranks.is_writer:
            return
        self.context.reporter.show(split, values)
        try:
            self.context.metrics.write(n_done, split, **values)
        except StorageError as error:
            self.tell(f"WARNING: metrics of update {n_done} wait for disk space: {error.got}")

    def tell(self, text: str) -> None:
        """A message for people."""
        if self.ranks.is_writer:
            self.context.reporter.warn(text)

    def log(self, n_done: int, update: Update | None, state: RunState) -> dict[str, Any]:
        """The lines of the interval that ends here, and the start of the next one.

        Returns:
            Its numbers for the manifest: tokens_per_second, and train_loss where an update was made.
        """
        means, lap = state.interval.means(), state.meter.lap()
        if update is not None:
            means |= {"grad_norm": update.grad_norm, "lr": update.lr}
        self.write(n_done, "train", **means, tokens=state.interval.n_tokens_total)
        self.write(n_done, "system", **lap)
        self._report_states(n_done, state)
        state.interval.start()
        loss = {"train_loss": means["loss"]} if "loss" in means else {}
        return {"tokens_per_second": lap["tokens_per_second"]} | loss

    def _report_states(self, n_done: int, state: RunState) -> None:
        """The newest training state on the disk, and those that could not be written."""
        checkpoints = state.checkpoints
        if self.ranks.is_writer and checkpoints.last_written is not None:
            self.context.reporter.saved(checkpoints.last_written)
        for step, reason in checkpoints.failures:
            self.write(n_done, "checkpoints", failed_step=step, reason=reason)
        checkpoints.failures.clear()
