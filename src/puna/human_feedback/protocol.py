"""The annotation protocol (§3.2.1): an ordinal scale of preference, and what no pair may be.

Its three safety bins are in `core.safety_bins`.
"""

from puna.core.errors import ProtocolError
from puna.core.records import RATINGS, Comparison
from puna.tokenizer import prompt_text

__all__ = ["check_comparison", "preference_level"]


def preference_level(comparison: Comparison) -> int:
    """The judgement as a place on an ordinal scale of eight, from 0 (right much better) to 7 (left much better).

    Source: §3.2.1, four ratings for either side. Agreement between annotators is measured on it.

    Raises:
        ProtocolError: the comparison does not say on which side its responses were shown.
    """
    if comparison.chosen.shown_on is None:
        raise ProtocolError(
            where=f"comparison {comparison.id}",
            expected="the side on which the chosen response was shown",
            got="none",
            fix="Record chosen.shown_on when annotating.",
        )
    strength = len(RATINGS) - 1 - RATINGS.index(comparison.rating)  # 0 negligible .. 3 significant
    return 4 + strength if comparison.chosen.shown_on == "left" else 3 - strength


def check_comparison(comparison: Comparison) -> None:
    """Refuse a pair that the protocol cannot have produced.

    Raises:
        ProtocolError: the prompt is no dialog that ends with the user, both responses are the same, or the chosen one
            is unsafe and the other safe.
    """
    prompt_text(comparison.prompt)
    where = f"comparison {comparison.id}"
    if comparison.prompt[-1].role != "user":
        fix = "Cut the prompt after its last user turn."
        raise ProtocolError(
            where=where, expected="a prompt that ends with the user", got="another role", fix=fix
        )
    if comparison.chosen.response == comparison.rejected.response:
        fix = "Drop the pair: it holds no preference."
        raise ProtocolError(
            where=where, expected="two different responses", got="the same text twice", fix=fix
        )
    if comparison.chosen.is_safe is False and comparison.rejected.is_safe:
        fix = "Leave the pair out: safer responses should also be preferred."
        raise ProtocolError(
            where=where,
            expected="a pair of one of the three safety bins",
            got="an unsafe response chosen over a safe one",
            fix=fix,
        )
