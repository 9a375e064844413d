"""Order statistics against brute force over all subsets (Figure 7)."""

import itertools
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.rlhf.best_of_k import expected_max, expected_median, reward_by_k


@given(values=st.lists(st.floats(-3, 3), min_size=1, max_size=7), data=st.data())
def test_expected_max_and_median_equal_the_mean_over_all_subsets(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(values)))
    subsets = list(itertools.combinations(values, k))
    assert expected_max(values, k) == pytest.approx(fmean(map(max, subsets)), abs=1e-9)
    assert expected_median(values, k) == pytest.approx(fmean(map(median, subsets)), abs=1e-9)


def test_reward_by_k_has_powers_of_two_and_k_itself_and_max_rises() -> None:
    rows = reward_by_k([[0.1, 0.5, 0.2, 0.9, 0.3, 0.4], [0.0, 0.2, 0.1, 0.3, 0.6, 0.2]])
    assert [row["k"] for row in rows] == [1, 2, 4, 6]
    best = [row["max_mean"] for row in rows]
    assert best == sorted(best)
    assert best[-1] == pytest.approx((0.9 + 0.6) / 2)
    assert rows[0]["max_mean"] == pytest.approx(rows[0]["median_mean"])


def test_reward_by_k_by_hand() -> None:
    """Of 0, 1, 5: at k = 2 the pairs have best 1, 5, 5 and median 0.5, 2.5, 3; at k = 3 best 5 and median 1."""
    assert [[row["k"], row["max_mean"], row["median_mean"]] for row in reward_by_k([[5.0, 0.0, 1.0]])] == [
        pytest.approx(row) for row in ([1, 2, 2], [2, 11 / 3, 2], [3, 5, 1])
    ]
