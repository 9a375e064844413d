"""What each step computes: who is admitted, how the token budget is shared, who gives way when blocks run out.

Order is by arrival. Tokens of running responses come first, then pieces of prompts as far as the budget goes. When
no block is left, the sequence admitted last is put back to the head of the queue and later computed anew.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.inference.block_pool import BlockPool
from puna.inference.sequence import Sequence
from puna.inference.slots import SlotTable
from puna.model.blockwise_attention import BLOCK_TOKENS

__all__ = ["Batch", "Scheduler", "n_blocks_for"]


def n_blocks_for(n_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-n_tokens // BLOCK_TOKENS)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: slots in row order with how many tokens each advances; prompts' long pieces come last."""

    slots: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    copies: tuple[list[int], list[int]]
    """Blocks to copy before the step: from, to."""


class Scheduler:
    """Admission, budget and preemption; touches no tensor."""

    def __init__(self, pool: BlockPool, slots: SlotTable, *, max_step_tokens: int) -> None:
        self.pool, self.slots, self.max_step_tokens = pool, slots, max_step_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.n_preemptions = 0
        self._free_slots = list(range(len(slots.n_tokens)))[::-1]
        self._filling: list[Sequence] = []
        self._copies: tuple[list[int], list[int]] = ([], [])

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def schedule(self) -> Batch | None:
        """Admit, then share out the budget; None if there is nothing to do."""
        self._admit()
        while self.running:
            slots = np.array([sequence.slot for sequence in self.running])
            n_tokens = self._share_budget(slots)
            if self._reserve(slots, n_tokens):
                break
        else:
            return None
        copies, self._copies = self._copies, ([], [])
        self.pool.release(copies[0])
        chosen = np.flatnonzero(n_tokens)
        chosen = chosen[np.argsort(n_tokens[chosen], kind="stable")]
        return Batch(slots[chosen], n_tokens[chosen], copies)

    def advance(self, batch: Batch) -> None:
        """The batch's keys and values are in the cache: offer computed prompts to those who wait for them."""
        self.slots.n_computed[batch.slots] += batch.n_tokens
        still_filling = []
        for sequence in self._filling:
            n_prompt, n_computed = sequence.n_prompt, int(self.slots.n_computed[sequence.slot])
            n_ready = n_blocks_for(n_prompt) if n_computed >= n_prompt else n_computed // BLOCK_TOKENS
            self.pool.prefixes.mark_ready(sequence.blocks[sequence.n_ready : n_ready])
            sequence.n_ready = n_ready
            if n_computed < n_prompt:
                still_filling.append(sequence)
        self._filling = still_filling

    def leave(self, sequence: Sequence) -> None:
        """A running sequence has ended: its slot and blocks are free at once."""
        self.running.remove(sequence)
        self._vacate(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence wherever it is."""
        if sequence.is_running:
            self.leave(sequence)
        else:
            self.waiting.remove(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        if sequence in self._filling:
            self._filling.remove(sequence)
        self.pool.release(sequence.blocks)
        self._free_slots.append(self.slots.leave(sequence))
        sequence.blocks, sequence.n_ready = [], 0

    def _admit(self) -> None:
        """Move sequences from the queue into free slots; those whose prompt is being computed wait for it."""
        passed: list[Sequence] = []
        while self.waiting and self._free_slots:
            sequence = self.waiting.popleft()
            outcome = self._try_admit(sequence)
            if outcome == "later":
                passed.append(sequence)
            elif outcome == "full":
                self.waiting.appendleft(sequence)
                break
        self.waiting.extendleft(reversed(passed))

    def _try_admit(self, sequence: Sequence) -> str:
        pool, tokens, wants_echo = self.pool, sequence.tokens, sequence.request.wants_echo
        n_prompt = len(sequence.request.prompt)
        shared, tail, must_wait = ([], None, False) if wants_echo else pool.prefixes.match(tokens)
        if must_wait:
            return "later"
        n_known = len(shared) * BLOCK_TOKENS if tail is None else len(tokens) - 1
        if tail is not None and len(tokens) % BLOCK_TOKENS == 0:  # nobody writes there any more: no copy
            shared, tail = [*shared, tail], None
        n_new = n_blocks_for(len(tokens)) - len(shared)
        n_room = pool.n_available - sum(pool.n_readers[block] == 0 for block in shared)
        if n_room < n_new:
            return "full"
        if tail is not None and pool.n_readers[tail] == 0 and n_room == n_new:
            tail = None  # the copy's source would take the last block
        for block in shared:
            pool.share(block)
        if tail is not None:
            pool.share(tail)  # until the copy is made
        fresh = []
        for place in range(len(shared), len(shared) + n_new):
            is_whole = (place + 1) * BLOCK_TOKENS <= n_prompt and tail is None
            taken = pool.take(for_prompt=is_whole)
            assert taken is not None, "available blocks were counted"
            fresh.append(taken)
        if tail is not None:
            self._copies[0].append(tail)
            self._copies[1].append(fresh[0])
        sequence.blocks = [*shared, *fresh]
        if tail is None and not wants_echo:
            pool.prefixes.enter(sequence.request.prompt, sequence.blocks)
            sequence.n_ready = len(shared)
            self._filling.append(sequence)
        slot = self._free_slots.pop()
        self.slots.enter(slot, sequence, n_computed=n_known, n_shared=len(shared) * BLOCK_TOKENS)
        self.running.append(sequence)
        return "in"

    def _share_budget(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens each running sequence advances by: one where only one is left, then prompts by arrival."""
        n_left = self.slots.n_tokens[slots] - self.slots.n_computed[slots]
        is_single = n_left == 1
        singles = np.where(is_single & (is_single.cumsum() <= self.max_step_tokens), 1, 0)
        pieces = np.where(is_single, 0, n_left)
        room = self.max_step_tokens - int(singles.sum())
        before = pieces.cumsum() - pieces
        return singles + np.clip(room - before, 0, pieces)

    def _reserve(self, slots: NDArray[np.int64], n_tokens: NDArray[np.int64]) -> bool:
        """Give every sequence the blocks its tokens need; False if somebody had to give way."""
        n_needed = -(-(self.slots.n_computed[slots] + n_tokens) // BLOCK_TOKENS)
        for index in np.flatnonzero(n_needed > self.slots.n_blocks[slots]):
            sequence = self.running[index]
            while len(sequence.blocks) < n_needed[index]:
                block = self.pool.take()
                if block is None:
                    self._preempt(self.running[-1])
                    return False
                self.slots.tables[sequence.slot, len(sequence.blocks)] = block
                sequence.blocks.append(block)
                self.slots.n_blocks[sequence.slot] += 1
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Put a running sequence back to the head of the queue, with what it has sampled."""
        self._drop_copies(sequence)
        self.running.remove(sequence)
        self._vacate(sequence)
        self.waiting.appendleft(sequence)
        self.n_preemptions += 1

    def _drop_copies(self, sequence: Sequence) -> None:
        """Forget the copies into blocks that the sequence is about to lose."""
        sources, targets = self._copies
        kept = [(s, t) for s, t in zip(sources, targets, strict=True) if t not in sequence.blocks]
        self.pool.release([s for s, t in zip(sources, targets, strict=True) if t in sequence.blocks])
        self._copies = ([s for s, _ in kept], [t for _, t in kept])
