"""What the training loop knows of a stage: where batches come from and what their loss is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["CountsFlops", "DescribesBatches", "LossSum", "TrainingTask"]


@dataclass(frozen=True, slots=True)
class LossSum:
    """The loss of one micro-batch, summed and not averaged."""

    sum: Tensor
    """Nats over all targets, with a gradient."""
    n_targets: int
    """Tokens, pairs or whatever the mean is over."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Other sums over the targets, such as pairs ranked rightly; logged divided by n_targets."""
    n_tokens: int | None = None
    """Tokens the model read, for the rate shown; None means n_targets."""


@runtime_checkable
class TrainingTask(Protocol):
    """What is learned from what; the loop knows only this."""

    @property
    def model(self) -> nn.Module:
        """The module whose trainable parameters are updated."""
        ...

    def micro_batches(self, step: int) -> Sequence[Any]:
        """The batches of one update, a function of seed and step alone: resumption asks for any step."""
        ...

    def loss(self, batch: Any) -> LossSum:
        """Forward pass of one micro-batch."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Held-out measurements; called without gradients."""
        ...


@runtime_checkable
class DescribesBatches(Protocol):
    """A task that can say which rows or documents a micro-batch holds, for messages."""

    def describe(self, step: int, micro_batch: int) -> str:
        """Such as `train-00000.bin, tokens 8192 to 12288`."""
        ...


@runtime_checkable
class CountsFlops(Protocol):
    """A task that knows what a token costs: MFU is measured for it."""

    @property
    def flops_per_token(self) -> float:
        """Operations of forward and backward pass, model/accounting.training_flops_per_token."""
        ...
