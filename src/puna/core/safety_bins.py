"""The three bins of safety comparisons (§3.2.1): which of the two responses is safe."""

from typing import Literal

__all__ = ["LABELS_OF_BIN", "SafetyLabel", "safety_bin"]

SafetyLabel = Literal["chosen_safe_rejected_unsafe", "both_safe", "both_unsafe"]

LABELS_OF_BIN: dict[SafetyLabel, tuple[bool, bool]] = {
    "chosen_safe_rejected_unsafe": (True, False),
    "both_safe": (True, True),
    "both_unsafe": (False, False),
}
"""Whether the chosen and whether the rejected response is safe."""


def safety_bin(*, chosen_is_safe: bool, rejected_is_safe: bool) -> SafetyLabel | None:
    """The bin of a pair; None when the pair is excluded.

    Source: Llama 2 §3.2.1 keeps three bins (18 %, 47 % and 35 % of its pairs) and drops pairs whose chosen
    response is unsafe while the other is safe, since safer responses should also be preferred.
    """
    if chosen_is_safe:
        return "both_safe" if rejected_is_safe else "chosen_safe_rejected_unsafe"
    return None if rejected_is_safe else "both_unsafe"
