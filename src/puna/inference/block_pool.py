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
        self._free = list(range(1, n_blocks))  # a heap: low ids first keeps the used blocks together

    @property
    def n_usable(self) -> int:
        """Blocks that sequences can ever hold."""
        return self.n_blocks - 1

    @property
    def n_available(self) -> int:
        """Blocks that can be taken now, idle ones counted."""
        return len(self._free) + self.prefixes.n_idle

    @property
    def free_blocks(self) -> list[int]:
        """The blocks with nothing worth keeping."""
        return list(self._free)

    def take(self) -> int | None:
        """A block for one reader, or None if all are in use."""
        if not self._free:
            if not self.prefixes.n_idle:
                return None
            self._put_back(self.prefixes.evict())
        block = heapq.heappop(self._free)
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
            heapq.heappush(self._free, block)
