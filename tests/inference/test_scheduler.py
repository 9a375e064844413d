"""No block is lost, shared wrongly or written while another sequence reads it, whatever comes in whatever order."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from puna.inference.block_pool import BlockPool
from puna.inference.request import Request
from puna.inference.sampling import SamplingConfig
from puna.inference.scheduler import Scheduler, n_blocks_for
from puna.inference.sequence import Sequence
from puna.inference.slots import SlotTable
from puna.model.blockwise_attention import BLOCK_TOKENS

CONTEXT = 4 * BLOCK_TOKENS


class SchedulerMachine(RuleBasedStateMachine):
    """Drives the scheduler with made-up tokens and models the cache as the text each block's columns hold."""

    def __init__(self) -> None:
        super().__init__()
        self.n_requests = 0
        self.pool = BlockPool(8)
        self.slots = SlotTable.empty(3, CONTEXT)
        self.scheduler = Scheduler(self.pool, self.slots, max_step_tokens=90)
        self.content = np.full((8, BLOCK_TOKENS), -1, dtype=object)
        self.finished: list[tuple[Sequence, list[int]]] = []

    @rule(
        family=st.integers(0, 1),
        n_prompt=st.sampled_from([1, 2, 40, 63, 64, 65, 100, 128, 129, 180]),
        n_new=st.integers(1, 60),
        wants_echo=st.booleans(),
    )
    def submit(self, family: int, n_prompt: int, n_new: int, wants_echo: bool) -> None:
        prompt = [1000 * family + i for i in range(n_prompt)]
        request = Request(
            prompt=prompt, sampling=SamplingConfig(), seed=0, wants_echo=wants_echo and n_prompt % 2 == 0
        )
        n_limit = min(n_prompt + n_new, CONTEXT)
        self.scheduler.waiting.append(
            Sequence(id=self.n_requests, request=request, tokens=prompt, n_limit=n_limit)
        )
        self.n_requests += 1

    @rule(data=st.data())
    @precondition(lambda self: any(True for _ in self.scheduler))
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.cancel(data.draw(st.sampled_from(list(self.scheduler))))

    @rule(n_steps=st.integers(1, 12))
    def step(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self._step()

    def _step(self) -> None:
        batch = self.scheduler.schedule()
        if batch is None:
            assert not list(self.scheduler), "work was left undone"
            return
        assert 0 < batch.n_tokens.sum() <= 90
        running = {sequence.slot: sequence for sequence in self.scheduler.running}
        for source, target in zip(*batch.copies, strict=True):
            self.content[target] = self.content[source]
        for slot, n_tokens in zip(batch.slots.tolist(), batch.n_tokens.tolist(), strict=True):
            first = int(self.slots.n_computed[slot])
            for position in range(max(first, int(self.slots.n_shared[slot])), first + n_tokens):
                block = int(self.slots.tables[slot, position // BLOCK_TOKENS])
                assert self.pool.n_readers[block] == 1, "a block that others read was written"
                text = tuple(self.slots.tokens[slot, : position + 1].tolist())
                self.content[block, position % BLOCK_TOKENS] = text
            for position in range(first + n_tokens):  # all it reads is its own text, computed
                block = int(self.slots.tables[slot, position // BLOCK_TOKENS])
                text = tuple(self.slots.tokens[slot, : position + 1].tolist())
                assert self.content[block, position % BLOCK_TOKENS] == text
        self.scheduler.advance(batch)
        for slot in batch.slots.tolist():
            sequence = running[slot]
            if self.slots.n_computed[slot] == self.slots.n_tokens[slot]:
                place = int(self.slots.n_tokens[slot])
                self.slots.tokens[slot, place] = 5000 + 100 * sequence.id + place
                self.slots.n_tokens[slot] += 1
                if self.slots.n_tokens[slot] >= sequence.n_limit:
                    self.scheduler.leave(sequence)

    @invariant()
    def every_block_is_somewhere_once(self) -> None:
        readers = np.zeros(8, dtype=int)
        for sequence in self.scheduler.running:
            assert len(set(sequence.blocks)) == len(sequence.blocks)
            n_held = int(self.slots.n_blocks[sequence.slot])
            assert self.slots.tables[sequence.slot, :n_held].tolist() == sequence.blocks
            readers[sequence.blocks] += 1
        assert (readers == self.pool.n_readers).all()
        free, idle = set(self.pool.free_blocks), set(self.pool.prefixes.idle_blocks)
        in_use = set(np.flatnonzero(readers).tolist())
        assert free | idle | in_use == set(range(1, 8))
        assert len(free) + len(idle) + len(in_use) == 7
        assert self.pool.n_available == len(free) + len(idle)

    def teardown(self) -> None:
        for _ in range(2000):
            if not list(self.scheduler):
                break
            self._step()
        assert not list(self.scheduler), "the queue never emptied"
        self.pool.forget_prefixes()
        assert self.pool.n_available == self.pool.n_usable == 7


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def scheduler_of(n_blocks: int, n_slots: int = 4, max_step_tokens: int = 64) -> Scheduler:
    return Scheduler(BlockPool(n_blocks), SlotTable.empty(n_slots, CONTEXT), max_step_tokens=max_step_tokens)


def waiting(scheduler: Scheduler, *lengths: int) -> list[Sequence]:
    found = []
    for index, n in enumerate(lengths):
        prompt = list(range(1000 * index, 1000 * index + n))
        request = Request(prompt=prompt, sampling=SamplingConfig(), seed=index)
        found.append(Sequence(id=index, request=request, tokens=prompt, n_limit=n + 20))
    scheduler.waiting.extend(found)
    return found


def test_responses_come_before_prompts_and_prompts_are_read_in_pieces() -> None:
    scheduler = scheduler_of(20)
    waiting(scheduler, 1, 100, 30)
    batch = scheduler.schedule()
    assert batch is not None
    assert dict(zip(batch.slots.tolist(), batch.n_tokens.tolist(), strict=True)) == {0: 1, 1: 63}
    scheduler.advance(batch)
    batch = scheduler.schedule()
    assert batch is not None
    assert dict(zip(batch.slots.tolist(), batch.n_tokens.tolist(), strict=True)) == {1: 37, 2: 27}


def test_who_does_not_fit_waits_and_later_ones_do_not_overtake() -> None:
    scheduler = scheduler_of(4)
    first, second, third = waiting(scheduler, 100, 130, 1)
    scheduler.schedule()
    assert scheduler.running == [first]
    assert list(scheduler.waiting) == [second, third]
    scheduler.cancel(first)
    scheduler.schedule()
    assert scheduler.running == [second]


def test_samples_of_a_prompt_that_fills_its_blocks_share_all_of_them() -> None:
    """Only its last token is computed again; no block is copied, and nothing is written where others read."""
    scheduler = scheduler_of(20, max_step_tokens=200)
    prompt = list(range(2 * BLOCK_TOKENS))
    for index in range(3):
        request = Request(prompt=prompt, sampling=SamplingConfig(), seed=index)
        scheduler.waiting.append(Sequence(id=index, request=request, tokens=prompt, n_limit=len(prompt) + 5))
    first = scheduler.schedule()
    assert first is not None
    scheduler.advance(first)
    second = scheduler.schedule()
    assert second is not None
    assert second.copies == ([], [])
    assert second.n_tokens.tolist() == [1, 1]
    blocks = [sequence.blocks for sequence in scheduler.running]
    assert blocks[0][:2] == blocks[1] == blocks[2]
    assert scheduler.slots.n_shared[second.slots].tolist() == [128, 128]


def test_n_blocks_for_rounds_up() -> None:
    assert [n_blocks_for(n) for n in (0, 1, 64, 65)] == [0, 1, 1, 2]
