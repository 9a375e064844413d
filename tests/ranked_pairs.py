"""Comparisons with a known right answer, for the tests of reward models."""

from puna.core.records import RATINGS, Comparison, Message, Side

__all__ = ["comparison"]


def comparison(index: int, *, guideline: str = "helpfulness", is_noisy: bool = False) -> Comparison:
    """The hen is red is always right, the cow never; negligible gaps are noise when asked for."""
    good, bad = "the hen is red.", "i can not help with that. moo."
    rating = RATINGS[index % 4]
    if is_noisy and rating == "negligibly_better" and index % 8 == 3:
        good, bad = bad, good
    return Comparison.model_validate(
        {
            "id": f"{guideline}-{index}",
            "prompt": (Message(role="user", content=f"what color is hen {index}?"),),
            "chosen": Side(response=good, is_safe=True if guideline == "safety" else None),
            "rejected": Side(response=bad, is_safe=False if guideline == "safety" else None),
            "rating": rating,
            "guideline": guideline,
            "safety": ("chosen_safe_rejected_unsafe" if guideline == "safety" else None),
        }
    )
