"""One answered prompt of an evaluation: what is written to items.jsonl for people, later stages and the report."""

from typing import Literal

from puna.core.grading import Grade
from puna.core.records import Domain, FinishReason, Message, Record

__all__ = ["Item", "Suite"]

Suite = Literal["helpful", "adversarial", "borderline", "constraint"]


class Item(Record):
    """A prompt, the answer and what was made of it."""

    id: str
    """The prompt's; a turn of a longer dialog adds its number."""
    suite: Suite
    """Which measures it counts for."""
    domain: Domain
    messages: tuple[Message, ...]
    """The dialog up to the user's turn; its earlier answers are the model's own where it is a constraint dialog."""
    response: str
    finish_reason: FinishReason
    n_tokens: int
    """Tokens of the response, end-of-sequence included."""
    turn: int | None = None
    """User turn of a constraint dialog, counted from 1."""
    grade: Grade | None = None
    """None where nobody knows the truth."""
    rm_helpfulness: float | None = None
    """Score of the helpfulness reward model after a sigmoid, in [0, 1]."""
    rm_safety: float | None = None
    """Score of the safety reward model after a sigmoid, in [0, 1]; under 0.5 is unsafe (Table 29)."""
