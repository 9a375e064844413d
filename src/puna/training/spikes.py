"""Loss spikes and divergence, from the losses alone: every process decides the same.

The paper shows smooth curves (Figure 5) and names no remedy; skipping past the batch after going back is PaLM's
(Chowdhery et al. 2022, §5.1).
"""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from puna.core.config import Settings
from puna.core.errors import NumericsError

__all__ = ["DIVERGED_UPDATES", "LossWatch", "Spike", "SpikeConfig"]

MAX_IN_A_ROW = 5
"""Interventions one after another; a loss that stays high after that is the new level, and divergence decides."""
DIVERGED_UPDATES = 5
"""Updates in a row above the limit that make a divergence of a spike."""


class SpikeConfig(Settings):
    """When a loss is too high to be true, and what is done then."""

    action: Literal["none", "skip", "rollback"] = "none"
    """none: record it. skip: leave this update out. rollback: go back to the last training state and leave the batches
    up to this one out on the way. Our choice: the paper names none."""
    threshold: float = Field(default=6.0, gt=0)
    """Deviations above the running mean of the loss."""
    window_steps: int = Field(default=100, gt=1)
    """Updates that the running mean and deviation remember, and that pass before the first verdict."""
    n_skipped_batches: int = Field(default=1, gt=0)
    """Batches left out after a rollback, the spike's own last."""
    max_rollbacks: int = Field(default=10, gt=0)
    """More than these stop the run."""
    divergence_ratio: float | None = Field(default=3.0, gt=1)
    """Stop when five losses in a row are above this times the first loss plus one nat; None never stops."""


@dataclass(frozen=True, slots=True)
class Spike:
    """One verdict, for metrics and messages."""

    loss: float
    expected: float
    deviation: float


@dataclass(slots=True)
class LossWatch:
    """Running mean and deviation of the loss; saved with the training state, so that a resumed run decides the same."""

    first: float | None = None
    mean: float = 0.0
    variance: float = 0.0
    n: int = 0
    n_in_a_row: int = 0
    n_high: int = 0

    @property
    def is_calm(self) -> bool:
        """Whether this moment is worth a training state."""
        return self.n_high == 0

    def spike(self, loss: float, config: SpikeConfig) -> Spike | None:
        """Judge the loss of an update before it is made; a loss that is no spike moves the mean.

        Raises:
            NumericsError: the losses have left for good.
        """
        self._check_divergence(loss, config)
        deviation = math.sqrt(self.variance)
        if self.n >= config.window_steps and loss > self.mean + config.threshold * max(deviation, 1e-6):
            self.n_in_a_row += 1
            if self.n_in_a_row <= MAX_IN_A_ROW:
                return Spike(loss, self.mean, deviation)
        else:
            self.n_in_a_row = 0
        self._add(loss, config.window_steps)
        return None

    def _add(self, loss: float, window_steps: int) -> None:
        """Exponential averages; the first values count alike (Welford's rule for growing windows)."""
        self.n += 1
        weight = 1 / min(self.n, window_steps)
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference**2)

    def _check_divergence(self, loss: float, config: SpikeConfig) -> None:
        if self.first is None:
            self.first = loss
        if config.divergence_ratio is None:
            return
        limit = config.divergence_ratio * self.first + 1
        self.n_high = self.n_high + 1 if loss > limit else 0
        if self.n_high >= DIVERGED_UPDATES:
            raise NumericsError(
                where="training loss",
                expected=f"below {limit:.4g} nats, {config.divergence_ratio:g} times the first loss plus one",
                got=f"{DIVERGED_UPDATES} updates above it, the last at {loss:.4g}: it diverges",
                fix="Lower peak_lr or lengthen the warm-up. The last training state before it left is kept.",
            )
