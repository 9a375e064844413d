"""Reads what each version answered: evaluation items and their scores."""

from puna.core.items import Item
from puna.core.records import read_records
from puna.reporting.run_folder import Artifact

__all__ = ["read_items", "scores_by_prompt"]


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
