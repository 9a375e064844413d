"""Finds personal information of private individuals, so that pages heavy in it can be left out (§2.1).

Source: §2.1, "we made an effort to remove data from certain sites known to contain a high volume of personal
information about private individuals". The paper names no method: patterns and limits here are our choice.
They find written-out contact and identity data, not names.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic import Field

from puna.core.config import Settings

__all__ = ["Hit", "PersonalInformationConfig", "find", "is_heavy"]


class PersonalInformationConfig(Settings):
    """When a page holds too much personal information."""

    min_hits: int = Field(default=2, ge=1)
    """Pages with at least so many different hits are dropped whole; our choice."""


class Hit(NamedTuple):
    """One piece of personal information in a text."""

    kind: str
    text: str


EMAIL = re.compile(r"[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
NUMBERED_ID = re.compile(
    r"\b(?:id|passport|account|licen[cs]e|social security|identity card)"
    r"(?: (?:number|no\.?|card))?(?: is)?[:#]? ?(?=[a-z-]*\d)[a-z0-9][a-z0-9-]{4,}\b",
    re.IGNORECASE,
)
PHONE = re.compile(
    r"(?<![\w.,/-])(?<!\d )(?:\+\d{1,3}[ .-]?)?"
    r"(?:\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}|\d{2,4}[ .-]\d{3,4}[ .-]\d{3,4}|\d{3}[.-]\d{4})(?![\w-]| \d)"
)
ADDRESS = re.compile(
    r"\b\d{1,5}[a-z]? (?:(?!(?:a|an|and|are|at|by|down|from|in|is|near|of|off|on|the|to|with)\b)[a-z.'-]+ ){1,2}"
    r"(?:street|st\.|road|rd\.|avenue|ave\.|lane|ln\.|drive|boulevard|blvd\.)(?![a-z])",
    re.IGNORECASE,
)


def passes_luhn(digits: str) -> bool:
    """Payment cards carry a check digit: ISO/IEC 7812-1, Annex B."""
    numbers = [int(digit) for digit in reversed(digits) if digit.isdigit()]
    doubled = (2 * number - 9 * (number > 4) for number in numbers[1::2])
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0


def passes_iban(text: str) -> bool:
    """Bank accounts carry check digits: ISO 13616, the rearranged number is 1 modulo 97."""
    packed = text.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in packed[4:] + packed[:4])) % 97 == 1


def _always(text: str) -> bool:
    return True


KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", EMAIL, _always),
    ("social_security", SOCIAL_SECURITY, _always),
    ("iban", IBAN, passes_iban),
    ("card", CARD, passes_luhn),
    ("phone", PHONE, _always),
    ("numbered_id", NUMBERED_ID, _always),
    ("address", ADDRESS, _always),
)
"""Tried in order; what one kind found is hidden from the next, so that nothing counts twice."""


def find(text: str) -> list[Hit]:
    """The different pieces of personal information in a text, by kind, then in order."""
    hits: list[Hit] = []
    for kind, pattern, is_valid in KINDS:
        found = [match for match in pattern.finditer(text) if is_valid(match.group())]
        hits += [Hit(kind, match.group()) for match in found]
        for match in found:
            text = text[: match.start()] + "\0" * len(match.group()) + text[match.end() :]
    return list(dict.fromkeys(hits))


def is_heavy(hits: list[Hit], config: PersonalInformationConfig) -> bool:
    """Whether a page with these hits is dropped."""
    return len(hits) >= config.min_hits
