"""A sequence's numbers are in one place, and moving them loses none."""

import numpy as np

from puna.inference.request import Request
from puna.inference.sampling import SamplingConfig
from puna.inference.sequence import Sequence
from puna.inference.slots import SlotTable


def waiting(prompt: list[int], seed: int = 0) -> Sequence:
    return Sequence(
        id=0, request=Request(prompt=prompt, sampling=SamplingConfig(), seed=seed), tokens=prompt, n_limit=90
    )


def append(slots: SlotTable, sequence: Sequence, token: int, logprob: float) -> None:
    slots.append([sequence], np.array([token]), np.array([logprob], dtype=np.float32))


def test_what_was_sampled_outlives_leaving_and_another_in_its_slot() -> None:
    slots = SlotTable.empty(2, 100)
    first, second = waiting([5, 6, 7]), waiting([8] * 50)
    slots.enter(1, first, n_computed=0, n_shared=0)
    for token in (20, 21):
        append(slots, first, token, -token / 10)
    expected = ([20, 21], [np.float32(-2.0), np.float32(-2.1)])
    assert slots.response(first) == expected
    assert slots.last_logprob(first) == expected[1][1]
    assert slots.leave(first) == 1
    assert not first.is_running
    slots.enter(1, second, n_computed=0, n_shared=0)
    append(slots, second, 30, -3.0)
    assert slots.response(first) == expected
    slots.enter(0, first, n_computed=2, n_shared=0)
    append(slots, first, 22, -0.5)
    assert slots.response(first) == ([20, 21, 22], [*expected[1], -0.5])
    assert slots.tokens[0, :6].tolist() == [5, 6, 7, 20, 21, 22]
    assert slots.n_tokens[0] == 6
    assert slots.response(second) == ([30], [-3.0])
