"""Which items a step trains on: a permutation per epoch, as a pure function of seed and step."""

from functools import lru_cache

import torch
from torch import Tensor

from puna.core.seeding import generator

__all__ = ["ShuffledOrder"]


class ShuffledOrder:
    """Every item once per epoch in a seeded order; asking for a step twice gives the same answer."""

    def __init__(self, n_items: int, *, batch_size: int, seed: int, n_epochs: float | None = None) -> None:
        """Without n_epochs the order never ends and every batch is full."""
        self.n_items = n_items
        self.batch_size = batch_size
        self._end = None if n_epochs is None else max(1, round(n_epochs * n_items))
        self._permutation = lru_cache(maxsize=2)(lambda epoch: _permutation(n_items, seed, epoch))

    @property
    def n_steps(self) -> int | None:
        """Updates until the last epoch is through, the last one perhaps smaller; None when endless."""
        return None if self._end is None else -(-self._end // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Item indices of one update; it may join the end of an epoch and the start of the next."""
        first = step * self.batch_size
        last = first + self.batch_size if self._end is None else min(first + self.batch_size, self._end)
        return [int(self._permutation(i // self.n_items)[i % self.n_items]) for i in range(first, last)]

    def micro_batches(self, step: int, size: int) -> list[list[int]]:
        """The same update in pieces of at most `size` items, so that each fits in memory."""
        batch = self.batch(step)
        return [batch[first : first + size] for first in range(0, len(batch), size)]


def _permutation(n_items: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n_items, generator=generator(seed, "order", epoch))
