"""Pairwise comparison of two versions by a reward model's scores of the same prompts (§3.4.1)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.core.errors import DataError
from puna.core.intervals import Interval, wilson_interval
from puna.core.items import Item
from puna.core.records import REWARD_ROLES, PromptSet, RewardRole, read_records

__all__ = ["WinRate", "check_judges", "read_items", "win_rate", "win_rates"]

_SUITE: dict[RewardRole, PromptSet] = {"helpfulness": "helpful", "safety": "adversarial"}
"""The prompts that each role is asked about."""

UNKNOWN_JUDGE = "an unknown one (evaluated before scores named their reward model)"


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


def win_rate(items: Sequence[Item], reference: Sequence[Item], *, role: RewardRole) -> WinRate:
    """Compare by the role's score over the prompts of its suite that both answered.

    Source: Llama 2 §3.4.1 tracks versions by reward model between the human evaluations.

    Raises:
        DataError: no prompt has a score of this role on both sides, or the scores are of different reward models.
    """
    name, suite = f"rm_{role}", _SUITE[role]
    theirs = {item.id: item for item in reference if item.suite == suite and getattr(item, name) is not None}
    compared = [
        item
        for item in items
        if item.suite == suite and item.id in theirs and getattr(item, name) is not None
    ]
    if not compared:
        raise DataError(
            where=f"win rate by the {role} reward model",
            expected=f"{suite} prompts that both evaluations answered and scored",
            got="none",
            fix="Evaluate both versions on the same prompts with the same reward models.",
        )
    _check_same_judge(role, _judges(role, compared), _judges(role, [theirs[item.id] for item in compared]))
    pairs = [(getattr(item, name), getattr(theirs[item.id], name)) for item in compared]
    wins, losses = (sum(mine > other for mine, other in pairs), sum(mine < other for mine, other in pairs))
    return WinRate(wins, len(pairs) - wins - losses, losses)


def win_rates(items: Sequence[Item], reference: Sequence[Item]) -> dict[RewardRole, WinRate]:
    """Win rate of every role that both sides were scored for."""
    return {
        role: win_rate(items, reference, role=role)
        for role in REWARD_ROLES
        if _has_scores(role, items, reference)
    }


def check_judges(
    reference: Sequence[Item], judges: Mapping[RewardRole, str], prompt_ids: Collection[str]
) -> None:
    """Refuse a reference that other reward models scored, before anything is answered.

    Args:
        judges: Fingerprints of the reward models that will score, by role.
        prompt_ids: Of the prompts that will be asked.
    Raises:
        DataError: names both reward models.
    """
    for role, judge in judges.items():
        scored = [
            item
            for item in reference
            if item.suite == _SUITE[role]
            and item.id in prompt_ids
            and getattr(item, f"rm_{role}") is not None
        ]
        if scored:
            _check_same_judge(role, {judge}, _judges(role, scored))


def _judges(role: RewardRole, items: Sequence[Item]) -> set[str]:
    return {item.scored_by.get(role, UNKNOWN_JUDGE) for item in items}


def _check_same_judge(role: RewardRole, mine: set[str], theirs: set[str]) -> None:
    """Refuse scores of different reward models: their zero and their scale differ, so the rate would mean nothing."""
    if len(mine | theirs) > 1:
        raise DataError(
            where=f"win rate by the {role} reward model",
            expected="answers of both versions scored by one reward model",
            got=f"{', '.join(sorted(mine))} here and {', '.join(sorted(theirs))} in the reference",
            fix="Evaluate both versions with the same reward models.",
        )


def read_items(evaluation: Path) -> list[Item]:
    """The items of an evaluation artifact."""
    return list(read_records(evaluation / "items.jsonl", Item))


def _has_scores(role: RewardRole, *sides: Sequence[Item]) -> bool:
    return all(
        any(getattr(item, f"rm_{role}") is not None and item.suite == _SUITE[role] for item in side)
        for side in sides
    )
