"""Counts and lengths of Tables 6 and 26 on a batch that can be counted by hand."""

from pathlib import Path

import pytest

from puna.core.records import Comparison, Message, Side
from puna.human_feedback.statistics import describe
from puna.tokenizer import Tokenizer


def turn(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


def test_lengths_by_hand(variants: list[Path]) -> None:
    tokenizer = Tokenizer.load(variants[0])
    single = Comparison(
        id="1",
        prompt=(turn("user", "hen"),),
        chosen=Side(response="the hen is red.", is_safe=True),
        rejected=Side(response="red", is_safe=True),
        rating="better",
        safety="both_safe",
        guideline="safety",
        annotator="a",
    )
    double = single.model_copy(
        update={
            "id": "2",
            "prompt": (turn("user", "hen"), turn("assistant", "red"), turn("user", "the cow")),
            "safety": None,
            "guideline": "helpfulness",
        }
    )
    n = {text: len(tokenizer.encode(text)) for text in ("hen", "red", "the cow", "the hen is red.")}
    found = describe([single, double], tokenizer)
    assert found["comparisons"] == 2
    assert found["ratings"] == {
        "significantly_better": 0, "better": 2, "slightly_better": 0, "negligibly_better": 0,
    }  # fmt: skip
    assert found["safety"] == {"chosen_safe_rejected_unsafe": 0, "both_safe": 1, "both_unsafe": 0}
    assert found["guidelines"] == {"helpfulness": 1, "safety": 1}
    assert found["turns_per_dialog"] == 1.5
    assert found["tokens_per_prompt"] == pytest.approx((2 * n["hen"] + n["the cow"]) / 3)
    assert found["tokens_per_response"] == pytest.approx((3 * n["red"] + 2 * n["the hen is red."]) / 5)
    responses = (n["red"] + n["the hen is red."]) / 2
    history = (2 * n["hen"] + n["red"] + n["the cow"]) / 2
    assert found["tokens_per_example"] == pytest.approx(history + responses)


def test_single_turn_examples_add_up_as_in_table_6(variants: list[Path]) -> None:
    """OpenAI Summarize: 336.0 + 35.1 = 371.1."""
    sides = {"chosen": Side(response="the cow"), "rejected": Side(response="moo. moo.")}
    pair = Comparison(id="1", prompt=(turn("user", "what color is the hen?"),), rating="better", **sides)
    found = describe([pair], Tokenizer.load(variants[0]))
    total = found["tokens_per_prompt"] + found["tokens_per_response"]
    assert found["tokens_per_example"] == pytest.approx(total)


def test_an_unlabelled_batch_has_no_bins() -> None:
    assert describe([])["safety"] == {}
