"""The processes of one training as the loop sees them; a single process is the plain case and pays nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from puna.training.optimizer import average_and_clip_gradients

__all__ = ["SINGLE", "Ranks"]


class Ranks:
    """One process: every sum is complete, every decision is its own."""

    rank: int = 0
    size: int = 1
    n_shares: int = 1
    """Parts that the batch is cut into."""

    @property
    def is_writer(self) -> bool:
        """Whether this process writes metrics, artifacts and lines."""
        return self.rank == 0

    def share_of(self, batches: Sequence[Any]) -> tuple[list[Any], int]:
        """This process's micro-batches, and how many of them count: the rest only keep step with the others."""
        return list(batches), len(batches)

    def number_of(self, index: int) -> int:
        """Which of the update's micro-batches the index-th of this process's share is."""
        return index

    def before_micro_batch(self, model: nn.Module, *, is_last: bool) -> None:
        """Tell whether gradients are reduced after the coming backward pass."""

    def reduce(
        self, sums: dict[str, Tensor | float], counts: Sequence[int]
    ) -> tuple[dict[str, Tensor | float], list[int]]:
        """Sums and counts of one update over all processes."""
        return sums, list(counts)

    def average_and_clip(
        self, parameters: Iterable[nn.Parameter], *, n_targets: int, max_norm: float
    ) -> Tensor:
        """See `average_and_clip_gradients`; the norm is that of the whole gradient."""
        return average_and_clip_gradients(parameters, n_targets=n_targets, max_norm=max_norm)

    def any_is(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return flag

    def gather(self, value: Any, *, in_background: bool = False) -> list[Any]:
        """Every process's value, by rank; `in_background` is for the one thread beside the training."""
        return [value]

    def checkpoint_group(self, *, in_background: bool) -> Any:
        """The process group that checkpoints are coordinated through; None without one."""
        return None

    def after_evaluation(self, model: nn.Module) -> None:
        """Give back what forward passes without a backward pass have gathered."""


SINGLE = Ranks()
