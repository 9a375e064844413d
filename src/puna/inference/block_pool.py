"""Who holds which block of the cache: reference counts, the free list, and idle blocks kept for their prompts."""

import heapq

import numpy as np

from puna.inference.prefix_cache import PrefixCache

__all__ = ["BlockPool"]

MAX_IDLE_FRACTION = 0.25
"""Of the pool that blocks which only the prefix cache remembers may take; our choice."""


class BlockPool:
    """Block 0 belongs to nobody: rows that only fill up a step write there."""

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self.prefixes = PrefixCache(max_idle=int(MAX_IDLE_FRACTION * n_blocks))
        self.n_readers = np.zeros(n_blocks, dtype=np.int64)
        self._low, self._high = list(range(1, n_blocks)), [-block for block in range(n_blocks - 1, 0, -1)]
        self._is_free = np.ones(n_blocks, dtype=bool)
        self._n_free = n_blocks - 1

    @property
    def n_usable(self) -> int:
        """Blocks that sequences can ever hold."""
        return self.n_blocks - 1

    @property
    def n_available(self) -> int:
        """Blocks that can be taken now, idle ones counted."""
        return self._n_free + self.prefixes.n_idle

    @property
    def free_blocks(self) -> list[int]:
        """The blocks with nothing worth keeping."""
        return np.flatnonzero(self._is_free)[1:].tolist()

    def take(self, *, for_prompt: bool = False) -> int | None:
        """A block for one reader, or None if all are in use.

        Prompts, which may have more readers, take the last free block of the pool, responses the first: attention
        reads the pool's first blocks as they lie.
        """
        if not self._n_free:
            if not self.prefixes.n_idle:
                return None
            self._put_back(self.prefixes.evict())
        heap, sign = (self._high, -1) if for_prompt else (self._low, 1)
        block = sign * heapq.heappop(heap)
        while not self._is_free[block]:  # taken from the other end
            block = sign * heapq.heappop(heap)
        self._is_free[block] = False
        self._n_free -= 1
        self.n_readers[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more reader of a block that is in use or idle."""
        self.prefixes.use(block)
        self.n_readers[block] += 1

    def release(self, blocks: list[int]) -> None:
        """One reader less of each; the last of a text goes first, so that beginnings are kept longest."""
        for block in reversed(blocks):
            self.n_readers[block] -= 1
            assert self.n_readers[block] >= 0, f"block {block} was released twice"
            if self.n_readers[block] == 0:
                self._put_back(self.prefixes.retire(block))

    def forget_prefixes(self) -> None:
        """The weights have changed: no prompt is known any more."""
        self._put_back(self.prefixes.clear())

    def _put_back(self, blocks: list[int]) -> None:
        for block in blocks:
            assert not self._is_free[block], f"block {block} is free already"
            self._is_free[block] = True
            self._n_free += 1
            heapq.heappush(self._low, block)
            heapq.heappush(self._high, -block)
