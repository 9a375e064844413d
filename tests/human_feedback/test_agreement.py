"""Agreement coefficients against hand-worked and published tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import DataError
from puna.human_feedback.agreement import gwet_ac, weights

KAPPA_PARADOX = [(0, 0)] * 118 + [(0, 1)] * 5 + [(1, 0)] * 2
"""118 + 0 agreements of 125: Gwet's own example (2008) of high agreement that kappa calls worse than chance."""


def test_ac1_of_the_kappa_paradox() -> None:
    assert gwet_ac(KAPPA_PARADOX, n_categories=2, weighting="identity") == pytest.approx(0.9408, abs=5e-5)


def test_ac2_by_hand_with_three_categories() -> None:
    """Ordinal weights of three categories are 1, 2/3, 0; judgements (0, 1) and (2, 2).

    Observed (2/3 + 1) / 2 = 5/6. Prevalences 1/4, 1/4, 1/2, so chance is (3 + 4 * 2/3) * 5/8 / 6 = 85/144.
    """
    expected = (5 / 6 - 85 / 144) / (1 - 85 / 144)
    assert gwet_ac([(0, 1), (2, 2)], n_categories=3) == pytest.approx(expected)


def test_ordinal_weights() -> None:
    assert weights(4, "ordinal")[0] == pytest.approx([1, 5 / 6, 1 / 2, 0])
    assert weights(2, "ordinal") == weights(2, "identity") == [[1, 0], [0, 1]]


def test_missing_judgements_count_for_prevalence_only() -> None:
    """(0, 0), (1, 1) and a lone 1: observed 1, so the coefficient is 1 whatever chance is."""
    assert gwet_ac([(0, 0), (1, 1), (None, 1)], n_categories=2, weighting="identity") == 1


def test_three_annotators() -> None:
    """One item 0, 0, 1: two of six ordered pairs agree; prevalences 2/3 and 1/3 give chance 4/9."""
    value = gwet_ac([(0, 0, 1)], n_categories=2, weighting="identity")
    assert value == pytest.approx((1 / 3 - 4 / 9) / (1 - 4 / 9))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40))
def test_swapping_annotators_or_turning_the_scale_changes_nothing(rows: list[tuple[int, int]]) -> None:
    value = gwet_ac(rows, n_categories=8)
    assert gwet_ac([(b, a) for a, b in rows], n_categories=8) == pytest.approx(value)
    assert gwet_ac([(7 - a, 7 - b) for a, b in rows], n_categories=8) == pytest.approx(value)
    assert value <= 1 + 1e-12


def test_nothing_judged_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="two annotators"):
        gwet_ac([(0, None)], n_categories=2)
