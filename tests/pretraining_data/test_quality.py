"""Each quality rule on a page that breaks it alone, and on a good page that breaks none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.pretraining_data import quality
from puna.pretraining_data.quality import RULES, Page, QualityConfig, first_failure

LIMITS = QualityConfig()
GOOD = (
    "The farm lies in a green valley with a river on its western side. Every morning the farmer walks to the "
    "barn and feeds the animals. Goats like hay, while horses prefer oats that have been kept dry.\n"
    "In summer the children of the village come to see the lambs. They bring bread, they ask questions, and "
    "they go home when the sun sets behind the hills. Nobody would want to be anywhere else on such days!"
)


def test_a_good_page_breaks_no_rule() -> None:
    assert first_failure(GOOD, LIMITS) is None


BAD = {
    "few_words": "The goat eats hay. The cow eats grass. That is all.",
    "many_words": "the goat and " * 34_000,
    "odd_word_length": GOOD + " " + "a b " * 200,
    "many_symbols": GOOD + " #" * 20,
    "many_bullets": "\n".join(f"- {sentence.strip()}." for sentence in GOOD.split(".")),
    "many_ellipses": "\n".join(f"{sentence} ..." for sentence in GOOD.split(".")),
    "few_alphabetic_words": GOOD + " 12345" * 40,
    "few_stop_words": "goat eats hay slowly. " * 20,
    "few_sentences": GOOD.replace(".", ",").replace("!", ","),
    "few_terminal_lines": "\n".join(GOOD.split(",")[0].split()) * 3,
    "boilerplate": "\n".join([GOOD, "We use cookies.", "See our privacy policy."]),
    "repeated_lines": "\n".join([GOOD] * 3),
    "repeated_top_ngram": GOOD + " come and buy our fresh eggs now." * 8,
    "repeated_ngrams": GOOD + " " + GOOD,
}


@pytest.mark.parametrize("name", BAD)
def test_each_rule_sees_its_own_fault(name: str) -> None:
    rule = getattr(quality, name)
    assert rule(Page(BAD[name]), LIMITS)
    assert not rule(Page(GOOD), LIMITS)


def test_every_rule_is_tried() -> None:
    assert {rule.__name__ for rule in RULES} == set(BAD)


def test_repeated_words_closed_form() -> None:
    """a b c a b c a b: the 3-grams abc, bca, cab; from the fourth word on, all five words repeat."""
    assert quality._repeated_words(Page("a b c a b c a b"), 3) == 5
    assert quality._repeated_words(Page("a b c d e f"), 3) == 0


@given(st.text(max_size=300))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert first_failure(text, LIMITS) in {None, *(rule.__name__ for rule in RULES)}


def test_there_is_no_toxicity_rule() -> None:
    """§4.1: the data is not filtered for toxicity; a rude page of good form stays."""
    assert first_failure(GOOD.replace("farmer", "stupid idiot"), LIMITS) is None
