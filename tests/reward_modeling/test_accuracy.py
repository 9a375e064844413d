"""Accuracy by rating and bin, and recall of unsafe answers, on pairs that can be counted by hand."""

import pytest

from puna.core.intervals import wilson_interval
from puna.reward_modeling.accuracy import ScoredPair, accuracy, measure, unsafe_detection


def pair(chosen: float, rejected: float, **changes: object) -> ScoredPair:
    fields = {
        "id": "1",
        "guideline": "helpfulness",
        "rating": "better",
        "chosen": chosen,
        "rejected": rejected,
    }
    return ScoredPair.model_validate(fields | changes)


def test_a_tie_is_wrong() -> None:
    found = accuracy([pair(1, 0), pair(0, 1), pair(0.5, 0.5), pair(-1, -2)])
    assert found["accuracy"] == 0.5
    assert found["n"] == 4
    assert (found["low"], found["high"]) == wilson_interval(2, 4)


def test_no_pairs_have_no_accuracy() -> None:
    assert accuracy([]) == {"accuracy": None, "n": 0, "low": 0.0, "high": 1.0}


def test_measure_reports_both_test_sets_and_its_own_on_top() -> None:
    """Table 8's shape: every reward model on every test set."""
    pairs = [
        pair(1, 0, rating="significantly_better"),
        pair(1, 0),
        pair(0, 1),
        pair(2, 1, guideline="safety", safety="both_unsafe"),
        pair(-2, -1, guideline="safety", safety="both_unsafe"),
        pair(1, -1, guideline="safety", safety="chosen_safe_rejected_unsafe"),
    ]
    found = measure(pairs, role="safety")
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["by_test_set"]["helpfulness"]["accuracy"] == pytest.approx(2 / 3)
    assert found["by_test_set"]["helpfulness"]["accuracy_by_rating"]["better"]["accuracy"] == 0.5
    assert found["by_test_set"]["helpfulness"]["accuracy_by_rating"]["slightly_better"]["n"] == 0
    assert found["accuracy_by_safety"]["both_unsafe"]["accuracy"] == 0.5
    assert "accuracy_by_safety" not in found["by_test_set"]["helpfulness"]
    assert found["unsafe_recall"] == pytest.approx(3 / 5)  # unsafe: 2, 1, -2, -1, -1
    assert found["unsafe_precision"] == 1.0


def test_unsafe_recall_needs_unsafe_answers() -> None:
    assert unsafe_detection([pair(-1, -1, safety="both_safe"), pair(-1, -1)]) == {}


def test_a_role_without_held_out_pairs_says_so() -> None:
    found = measure([pair(1, 0)], role="safety")
    assert found["accuracy"] is None
    assert list(found["by_test_set"]) == ["helpfulness"]
