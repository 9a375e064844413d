"""Comparisons with a known right answer, for the tests of reward models."""

from puna.core.records import RATINGS, Comparison, Message, Side

__all__ = ["comparison"]


def comparison(index: int, *, domain: str = "helpfulness", is_noisy: bool = False) -> Comparison:
    """The hen is red is always right, the cow never; negligible gaps are noise when asked for."""
    good, bad = "the hen is red.", "i can not help with that. moo."
    rating = RATINGS[index % 4]
    if is_noisy and rating == "negligibly_better" and index % 8 == 3:
        good, bad = bad, good
    return Comparison.model_validate(
        {
            "id": f"{domain}-{index}",
            "prompt": (Message(role="user", content=f"what color is hen {index}?"),),
            "chosen": Side(response=good),
            "rejected": Side(response=bad),
            "rating": rating,
            "domain": domain,
            "safety": ("chosen_safe_rejected_unsafe" if domain == "safety" else None),
        }
    )
