"""One optimizer update from top to bottom: forward and backward, clip, check, step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from puna.training.config import LoopConfig
from puna.training.diagnosis import not_finite
from puna.training.gradients import GradientSums, sum_gradients
from puna.training.interval import Update
from puna.training.optimizer import set_lr
from puna.training.parallel.ranks import Ranks
from puna.training.run_state import RunState
from puna.training.signals import StopRequest
from puna.training.spike_response import judge
from puna.training.spikes import Spike
from puna.training.task import TrainingTask

__all__ = ["StepResult", "TrainStep"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step came to."""

    update: Update | None
    """None where the update was left out."""
    spike: Spike | None
    is_stop_requested: bool
    """A signal came to any process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """Makes the updates of one training."""

    task: TrainingTask
    config: LoopConfig
    ranks: Ranks
    optimizer: torch.optim.Optimizer
    state: RunState
    request: StopRequest
    read: Callable[[int], Sequence[Any]]
    """The task's micro_batches, perhaps read ahead."""

    def __call__(self, step: int) -> StepResult:
        """The update of a step, counted from 0, or none where its loss is a spike to be left out.

        Raises:
            NumericsError: loss or gradient is not finite, or the loss diverges; nothing was updated.
        """
        set_lr(self.optimizer, self.config.lr(step))
        sums = self.forward_backward(step)
        update = self.clip(sums, step)
        self.check(update, step)
        spike = judge(self.state, update.mean_loss, step, config=self.config.spikes)
        is_left_out = spike is not None and self.config.spikes.action != "none"
        if not is_left_out:
            self.optimizer.step()
        return StepResult(None if is_left_out else update, spike, sums.is_stop_requested)

    def forward_backward(self, step: int) -> GradientSums:
        """Gradients of the whole batch, summed over its targets and not yet divided."""
        self.optimizer.zero_grad(set_to_none=True)
        return sum_gradients(
            self.task,
            self.config,
            step,
            ranks=self.ranks,
            watchdog=self.state.watchdog,
            meter=self.state.meter,
            request=self.request,
            read=self.read,
        )

    def clip(self, sums: GradientSums, step: int) -> Update:
        """Divide by the targets and clip the norm; this is where the device is read, once a step."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.ranks.average_and_clip(
            parameters, n_targets=sums.n_targets, max_norm=self.config.optimizer.max_grad_norm
        )
        values = [torch.as_tensor(v, dtype=torch.float32, device=norm.device) for v in sums.sums.values()]
        grad_norm, *totals = torch.stack([norm, *values]).tolist()
        metrics = dict(zip(sums.sums, totals, strict=True))
        return Update(
            loss=metrics.pop("loss"),
            n_targets=sums.n_targets,
            n_tokens=sums.n_tokens,
            metrics=metrics,
            grad_norm=grad_norm,
            lr=self.config.lr(step),
        )

    def check(self, update: Update, step: int) -> None:
        """Stop before the weights change where a number is not finite.

        Raises:
            NumericsError: names layer and batch where a second pass over the batch can.
        """
        if math.isfinite(update.loss) and math.isfinite(update.grad_norm):
            return
        self.state.checkpoints.wait()
        raise not_finite(
            self.task,
            self.config,
            step,
            self.ranks,
            loss=update.loss,
            grad_norm=update.grad_norm,
            state="the last training state is kept",
        )
