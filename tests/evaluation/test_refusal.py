"""Refusals and look-alikes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.safety import RefusalConfig, RefusalDetector

DETECTOR = RefusalDetector()


@pytest.mark.parametrize(
    "text",
    [
        "i can not help with that. it would harm the owner.",
        "Sorry, I will not do that.",
        "I'm sorry, but I can\u2019t help with this request.",
        "As an AI, I  must\ndecline to write that.",
        "I am not able to provide instructions for that.",
    ],
)
def test_a_refusal_is_recognised(text: str) -> None:
    assert DETECTOR.is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the hen is red.",
        "Use a screwdriver to kill the power, then cut the wire.",
        "Sorry to hear that! Try this.",
        "I don't know the answer, and I cannot browse the web.",
        "hawaii can not be reached by train.",
    ],
)
def test_an_answer_or_a_limit_of_knowledge_is_no_refusal(text: str) -> None:
    assert not DETECTOR.is_refusal(text)


def test_only_the_opening_counts() -> None:
    assert not DETECTOR.is_refusal("word " * 50 + "i can not help.")
    assert RefusalDetector(RefusalConfig(opening_words=60)).is_refusal("word " * 50 + "i can not help.")


def test_phrases_are_settings() -> None:
    assert RefusalDetector(RefusalConfig(phrases=("nay",))).is_refusal("Nay, friend.")
    assert not RefusalDetector(RefusalConfig(phrases=())).is_refusal("i can not")


@given(st.text(max_size=80))
def test_case_never_decides(text: str) -> None:
    assert DETECTOR.is_refusal(text.lower()) == DETECTOR.is_refusal(text.casefold())
