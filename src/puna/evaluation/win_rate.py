"""Pairwise comparison of two versions by a reward model's scores of the same prompts (§3.4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from puna.core.errors import DataError
from puna.core.intervals import Interval, wilson_interval
from puna.core.items import Item, Suite
from puna.core.records import read_records

__all__ = ["WinRate", "read_items", "win_rate", "win_rates"]

Role = Literal["helpfulness", "safety"]

_SUITE: dict[Role, Suite] = {"helpfulness": "helpful", "safety": "adversarial"}
"""The prompts that each role is asked about."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often the version's answer scored above the reference's."""

    wins: int
    ties: int
    """The same text, or the same score."""
    losses: int

    @property
    def n(self) -> int:
        """Prompts compared."""
        return self.wins + self.ties + self.losses

    @property
    def value(self) -> float:
        """Share of wins, a tie counting half."""
        return (self.wins + self.ties / 2) / self.n

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of that share."""
        return wilson_interval(self.wins + self.ties / 2, self.n)


def win_rate(items: Sequence[Item], reference: Sequence[Item], *, role: Role) -> WinRate:
    """Compare by the role's score over the prompts of its suite that both answered.

    Source: Llama 2 §3.4.1 tracks versions by reward model between the human evaluations.

    Raises:
        DataError: no prompt has a score of this role on both sides.
    """
    name, suite = f"rm_{role}", _SUITE[role]
    theirs = {item.id: item for item in reference if item.suite == suite and getattr(item, name) is not None}
    pairs = [
        (getattr(item, name), getattr(theirs[item.id], name))
        for item in items
        if item.suite == suite and item.id in theirs and getattr(item, name) is not None
    ]
    if not pairs:
        raise DataError(
            where=f"win rate by the {role} reward model",
            expected=f"{suite} prompts that both evaluations answered and scored",
            got="none",
            fix="Evaluate both versions on the same prompts with the same reward models.",
        )
    wins, losses = (sum(mine > other for mine, other in pairs), sum(mine < other for mine, other in pairs))
    return WinRate(wins, len(pairs) - wins - losses, losses)


def win_rates(items: Sequence[Item], reference: Sequence[Item]) -> dict[Role, WinRate]:
    """Win rate of every role that both sides were scored for."""
    roles: tuple[Role, ...] = ("helpfulness", "safety")
    return {
        role: win_rate(items, reference, role=role) for role in roles if _has_scores(role, items, reference)
    }


def read_items(evaluation: Path) -> list[Item]:
    """The items of an evaluation artifact."""
    return list(read_records(evaluation / "items.jsonl", Item))


def _has_scores(role: Role, *sides: Sequence[Item]) -> bool:
    return all(
        any(getattr(item, f"rm_{role}") is not None and item.suite == _SUITE[role] for item in side)
        for side in sides
    )
