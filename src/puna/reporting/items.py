"""Reads what each version answered: evaluation items, as far as the report shows them."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from puna.core.records import Message, read_records
from puna.reporting.run_folder import Artifact

__all__ = ["Item", "read_items", "scores_by_prompt"]


class Item(BaseModel):
    """One graded answer; fields that the report does not show are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    suite: str = ""
    """Kind of prompt: helpful, adversarial, borderline, constraint."""
    messages: tuple[Message, ...]
    turn: int | None = None
    """User turn of a dialog with a standing instruction."""
    response: str
    grade: dict[str, Any] | None = None
    rm_helpfulness: float | None = None
    rm_safety: float | None = None


def read_items(evaluation: Artifact) -> list[Item]:
    """The items of one evaluation; none when it kept none."""
    return list(read_records(evaluation.path / "items.jsonl", Item)) if evaluation.has("items.jsonl") else []


def scores_by_prompt(evaluation: Artifact, role: str, suite: str = "") -> dict[str, float]:
    """Reward-model scores in [0, 1] by prompt, of one suite or of all."""
    name = f"rm_{role}"
    return {
        item.id: getattr(item, name)
        for item in read_items(evaluation)
        if getattr(item, name) is not None and suite in ("", item.suite)
    }
