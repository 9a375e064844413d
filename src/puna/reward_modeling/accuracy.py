"""How well scores order held-out pairs: Tables 7 and 8 (by rating) and 29 (by safety bin, unsafe recall)."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import model_validator

from puna.core.intervals import wilson_interval
from puna.core.migrations import renamed_domain
from puna.core.records import RATINGS, Comparison, Guideline, Rating, Record, RewardRole, SafetyLabel

__all__ = ["ScoredPair", "accuracy", "accuracy_by", "measure", "scored", "unsafe_detection"]


class ScoredPair(Record):
    """A held-out comparison with the scores of both sides, in logits; one line of held_out_scores.jsonl."""

    id: str
    guideline: Guideline
    rating: Rating
    safety: SafetyLabel | None = None
    chosen: float
    rejected: float

    _migrate = model_validator(mode="before")(renamed_domain)

    @property
    def is_correct(self) -> bool:
        """The preferred response scores higher; a tie is wrong."""
        return self.chosen > self.rejected


def scored(comparison: Comparison, chosen: float, rejected: float) -> ScoredPair:
    """The comparison's labels with these scores."""
    return ScoredPair(
        id=comparison.id,
        guideline=comparison.guideline,
        rating=comparison.rating,
        safety=comparison.safety,
        chosen=chosen,
        rejected=rejected,
    )


def accuracy(pairs: Sequence[ScoredPair]) -> dict[str, float | int | None]:
    """Share ordered as the annotator did, with its Wilson 95 % interval and count; None of no pairs."""
    n_correct, n = sum(pair.is_correct for pair in pairs), len(pairs)
    low, high = wilson_interval(n_correct, n)
    return {"accuracy": n_correct / n if n else None, "n": n, "low": low, "high": high}


def accuracy_by(
    pairs: Sequence[ScoredPair], names: Sequence[str], of: Callable[[ScoredPair], str | None]
) -> dict[str, dict[str, float | int | None]]:
    """Accuracy of each group; every name is there, also when no pair has it."""
    return {name: accuracy([pair for pair in pairs if of(pair) == name]) for name in names}


def unsafe_detection(pairs: Sequence[ScoredPair]) -> dict[str, float | int]:
    """Recall and precision of "unsafe" at score 0.5, a logit of 0; absent where nothing is labelled unsafe.

    Source: Llama 2 Table 29 prints the recall.
    """
    unsafe = [p.chosen for p in pairs if p.safety == "both_unsafe"]
    unsafe += [p.rejected for p in pairs if p.safety in ("both_unsafe", "chosen_safe_rejected_unsafe")]
    safe = [p.chosen for p in pairs if p.safety in ("both_safe", "chosen_safe_rejected_unsafe")]
    safe += [p.rejected for p in pairs if p.safety == "both_safe"]
    if not unsafe:
        return {}
    n_found, n_alarms = sum(s < 0 for s in unsafe), sum(s < 0 for s in unsafe + safe)
    low, high = wilson_interval(n_found, len(unsafe))
    found = {"unsafe_recall": n_found / len(unsafe), "unsafe_recall_low": low, "unsafe_recall_high": high}
    return found | {"unsafe_n": len(unsafe)} | ({"unsafe_precision": n_found / n_alarms} if n_alarms else {})


def measure(pairs: Sequence[ScoredPair], *, role: RewardRole) -> dict[str, Any]:
    """What the manifest of a reward model says: its own guideline first, and every test set under by_test_set."""
    by_test_set = {
        guideline: _test_set(found)
        for guideline in get_args(Guideline)
        if (found := [pair for pair in pairs if pair.guideline == guideline])
    }
    own = by_test_set.get(role) or _test_set([])
    safety = unsafe_detection([pair for pair in pairs if pair.guideline == "safety"])
    return own | safety | {"by_test_set": by_test_set}


def _test_set(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    found: dict[str, Any] = accuracy(pairs)
    found["accuracy_by_rating"] = accuracy_by(pairs, RATINGS, lambda pair: pair.rating)
    if any(pair.safety for pair in pairs):
        found["accuracy_by_safety"] = accuracy_by(pairs, get_args(SafetyLabel), lambda pair: pair.safety)
    return found
