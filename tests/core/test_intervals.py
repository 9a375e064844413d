"""Intervals against published values, limits and coverage."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.intervals import Z_95, mean_interval, wilson_interval


def test_wilson_interval_solves_its_equation() -> None:
    """Its ends are the p with |p_hat - p| = z sqrt(p (1 - p) / n)."""
    for p in wilson_interval(7, 20):
        assert abs(7 / 20 - p) == pytest.approx(Z_95 * math.sqrt(p * (1 - p) / 20))


def test_wilson_interval_of_none_seen() -> None:
    low, high = wilson_interval(0, 100)
    assert low == 0.0
    assert high == pytest.approx(Z_95**2 / (100 + Z_95**2))


def test_no_trials_claim_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_is_symmetric(case: tuple[int, int]) -> None:
    n_hits, n = case
    low, high = wilson_interval(n_hits, n)
    assert 0 <= low <= n_hits / n <= high <= 1
    mirrored = wilson_interval(n - n_hits, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high))


def test_mean_interval_agrees_with_the_normal_one() -> None:
    """Ends within 10 % of the half-width of mean +- 1.96 s / sqrt(n)."""
    random_ = random.Random(0)
    values = [random_.gauss(3.0, 2.0) for _ in range(400)]
    mean = sum(values) / 400
    half = Z_95 * math.sqrt(sum((v - mean) ** 2 for v in values) / 400 / 400)
    assert mean_interval(values) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_mean_interval_of_equal_values_is_a_point() -> None:
    assert mean_interval([0.25] * 9) == (0.25, 0.25)
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
