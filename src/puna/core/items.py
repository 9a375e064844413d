"""One answered prompt of an evaluation: what is written to items.jsonl for people, later stages and the report."""

from pydantic import Field, model_validator

from puna.core.grading import Grade
from puna.core.migrations import renamed_domain
from puna.core.records import FinishReason, Guideline, Message, PromptSet, Record, RewardRole

__all__ = ["Item"]


class Item(Record):
    """A prompt, the answer and what was made of it."""

    id: str
    """The prompt's; a turn of a longer dialog adds its number."""
    suite: PromptSet
    """Which measures it counts for."""
    guideline: Guideline
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
    scored_by: dict[RewardRole, str] = Field(default_factory=dict)
    """Fingerprint of the reward model that gave each score; scores of different ones cannot be compared."""

    _migrate = model_validator(mode="before")(renamed_domain)
