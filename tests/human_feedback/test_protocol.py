"""The protocol's bins, exclusion and scale."""

import pytest

from puna.core.errors import ProtocolError
from puna.core.records import RATINGS, Comparison, Message, Side
from puna.human_feedback.protocol import check_comparison, preference_level

PROMPT = (Message(role="user", content="hi"),)


def comparison(**changes: object) -> Comparison:
    fields = {
        "id": "1",
        "prompt": PROMPT,
        "chosen": Side(response="a", shown_on="left"),
        "rejected": Side(response="b", shown_on="right"),
        "rating": "better",
    }
    return Comparison.model_validate(fields | changes)


def test_levels_run_from_right_to_left() -> None:
    right, left = Side(response="a", shown_on="right"), Side(response="a", shown_on="left")
    levels = [preference_level(comparison(chosen=right, rating=rating)) for rating in RATINGS]
    levels += [preference_level(comparison(chosen=left, rating=rating)) for rating in reversed(RATINGS)]
    assert levels == list(range(8))


def test_impossible_pairs_are_refused() -> None:
    check_comparison(comparison())
    with pytest.raises(ProtocolError, match="two different responses"):
        check_comparison(comparison(rejected=Side(response="a")))
    unsafe, safe = Side(response="a", is_safe=False), Side(response="b", is_safe=True)
    with pytest.raises(ProtocolError, match="unsafe response chosen over a safe one"):
        check_comparison(comparison(chosen=unsafe, rejected=safe))
    with pytest.raises(ProtocolError, match="ends with the user"):
        check_comparison(comparison(prompt=(*PROMPT, Message(role="assistant", content="x"))))
    with pytest.raises(ProtocolError, match="by the assistant"):
        check_comparison(comparison(prompt=PROMPT * 2))
    with pytest.raises(ProtocolError, match="side"):
        preference_level(comparison(chosen=Side(response="a")))
