"""The gradient of one update: micro-batches summed, then reduced over all processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from puna.core.errors import DataError
from puna.training.config import LoopConfig
from puna.training.meter import Meter
from puna.training.parallel.ranks import Ranks
from puna.training.precision import precision
from puna.training.signals import StopRequest
from puna.training.task import TrainingTask
from puna.training.watchdog import Watchdog

__all__ = ["GradientSums", "sum_gradients"]


@dataclass(frozen=True, slots=True)
class GradientSums:
    """What the micro-batches of one update add up to, on all processes; gradients lie in the parameters."""

    sums: dict[str, Tensor | float]
    """The loss in nats under "loss", and the task's own."""
    n_targets: int
    n_tokens: int
    is_stop_requested: bool
    """A signal came to any process."""


def sum_gradients(
    task: TrainingTask,
    config: LoopConfig,
    step: int,
    *,
    ranks: Ranks,
    watchdog: Watchdog,
    meter: Meter,
    request: StopRequest,
    read: Callable[[int], Sequence[Any]],
) -> GradientSums:
    """Forward and backward passes of one update; summed, not averaged.

    Args:
        step: Counted from 0.
        request: Of this process; whether there is one anywhere is known afterwards.
        read: The task's micro_batches, perhaps read ahead.
    Raises:
        DataError: there is nothing to learn in the whole batch.
    """
    watchdog.note(f"reading the batch of update {step + 1}")
    with meter.timing("data"):
        batches, n_counted = ranks.share_of(read(step))
    n_targets = n_tokens = 0
    sums: dict[str, Tensor | float] = {}
    for index, batch in enumerate(batches):
        watchdog.note(f"micro-batch {index + 1} of {len(batches)} of update {step + 1}")
        ranks.before_micro_batch(task.model, is_last=index == len(batches) - 1)
        with precision(task.model, config.dtype):
            loss = task.loss(batch)
        if index >= n_counted:
            (loss.sum * 0.0).backward()
            continue
        loss.sum.backward()
        n_targets += loss.n_targets
        n_tokens += loss.n_targets if loss.n_tokens is None else loss.n_tokens
        for name, value in {"loss": loss.sum.detach(), **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + value
    watchdog.note(f"waiting for the other ranks' gradients of update {step + 1}")
    sums, (n_targets, n_tokens, n_stops) = ranks.reduce(sums, (n_targets, n_tokens, int(request.is_made)))
    if n_targets == 0:
        raise DataError(
            where=f"update {step + 1}",
            expected="at least one target to learn",
            got="none",
            fix="Check the loss masks of the training data.",
        )
    return GradientSums(sums, n_targets, n_tokens, n_stops > 0)
