"""Up-sampling, order and hold-out."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.pretraining_data.mixture import held_out, mixture_order, passes


@given(st.integers(0, 50), st.floats(0, 4), st.integers(0, 9))
def test_every_page_is_seen_floor_or_ceiling_times(n: int, weight: float, seed: int) -> None:
    seen = passes(n, weight, seed=seed, source="a")
    counts = Counter(seen)
    assert abs(len(seen) - n * weight) <= 0.5 + 1e-9
    assert all(counts[index] - int(weight) in (0, 1) for index in range(n))


def test_order_is_a_seeded_shuffle_of_all_passes() -> None:
    order = mixture_order({"a": 30, "b": 10}, {"a": 2.0, "b": 0.5}, seed=0)
    assert order == mixture_order({"b": 10, "a": 30}, {"b": 0.5, "a": 2.0}, seed=0)
    assert order != mixture_order({"a": 30, "b": 10}, {"a": 2.0, "b": 0.5}, seed=1)
    assert Counter(source for source, _ in order) == {"a": 60, "b": 5}
    assert order != sorted(order)


@pytest.mark.parametrize(
    ("n", "fraction", "expected"), [(100, 0.05, 5), (10, 0.01, 1), (1, 0.5, 0), (100, 0, 0)]
)
def test_held_out_counts(n: int, fraction: float, expected: int) -> None:
    ids = [f"page-{index}" for index in range(n)]
    out = held_out(ids, fraction, seed=0, source="a")
    assert len(out) == expected
    assert out <= set(ids)
    assert out == held_out(ids, fraction, seed=0, source="a")
