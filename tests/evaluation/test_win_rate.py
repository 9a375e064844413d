"""Wins, ties and losses of two versions on the same prompts."""

import pytest

from puna.core.errors import DataError
from puna.core.intervals import wilson_interval
from puna.core.items import Item
from puna.core.records import Message
from puna.evaluation.win_rate import WinRate, win_rate, win_rates


def items(
    scores: dict[str, float | None],
    suite: str = "helpful",
    role: str = "helpfulness",
    *,
    judge: str | None = "a1b2",
) -> list[Item]:
    return [
        Item.model_validate(
            {
                "id": name,
                "suite": suite,
                "guideline": "helpfulness",
                "messages": (Message(role="user", content="hi"),),
                "response": "x",
                "finish_reason": "eos",
                "n_tokens": 2,
                f"rm_{role}": score,
                "scored_by": {role: judge} if judge and score is not None else {},
            }
        )
        for name, score in scores.items()
    ]


MINE = items({"a": 0.9, "b": 0.2, "c": 0.5, "d": 0.8, "only mine": 1.0})
THEIRS = items({"d": 0.1, "c": 0.5, "b": 0.3, "a": 0.1, "unscored": None})


def test_shared_prompts_are_matched_by_id() -> None:
    found = win_rate(MINE, THEIRS, role="helpfulness")
    assert found == WinRate(wins=2, ties=1, losses=1)
    assert found.value == 2.5 / 4
    assert found.interval == wilson_interval(2.5, 4)


def test_win_rates_of_both_sides_sum_to_one() -> None:
    there, back = (win_rate(*sides, role="helpfulness").value for sides in ((MINE, THEIRS), (THEIRS, MINE)))
    assert there + back == 1


def test_only_scored_roles_are_compared() -> None:
    assert list(win_rates(MINE, THEIRS)) == ["helpfulness"]
    safe = items({"s": 0.4}, "adversarial", "safety")
    assert win_rates(MINE + safe, THEIRS + safe)["safety"] == WinRate(0, 1, 0)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="same prompts"):
        win_rate(MINE, items({"z": 0.4}), role="helpfulness")


def test_scores_of_different_reward_models_are_refused_by_name() -> None:
    """SFT against itself under another reward model once gave 0.467."""
    scores = {"a": 0.9, "b": 0.2, "c": 0.5}
    mine, again = items(scores, judge="a1b2"), items({"a": 0.8, "b": 0.3, "c": 0.6}, judge="c3d4")
    with pytest.raises(DataError, match="a1b2 here and c3d4 in the reference") as caught:
        win_rates(mine, again)
    assert "helpfulness reward model" in str(caught.value)
    assert win_rate(mine, items(scores, judge="a1b2"), role="helpfulness").value == 0.5


def test_scores_of_an_unknown_reward_model_are_compared_with_their_like_only() -> None:
    old = items({"a": 0.9, "b": 0.2}, judge=None)
    assert win_rate(old, old, role="helpfulness").value == 0.5
    with pytest.raises(DataError, match="an unknown one"):
        win_rate(items({"a": 0.9, "b": 0.2}), old, role="helpfulness")


def test_the_judge_of_one_role_does_not_matter_to_the_other() -> None:
    helpful, safe = items({"a": 0.9}), items({"s": 0.4}, "adversarial", "safety", judge="a")
    other = items({"s": 0.4}, "adversarial", "safety", judge="b")
    assert win_rate(helpful + safe, helpful + other, role="helpfulness").value == 0.5
    with pytest.raises(DataError, match="safety reward model"):
        win_rates(helpful + safe, helpful + other)
