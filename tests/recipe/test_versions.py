"""The schedule of versions: the paper's own, and what no run could follow."""

import pytest

from puna.recipe.versions import PAPER_SCHEDULE, Version, check_schedule, round_of


def test_the_papers_schedule() -> None:
    """§3.2.3: rejection sampling from the base model, the latest samples through V3, all after; PPO at the end."""
    rounds = PAPER_SCHEDULE[:-1]
    assert [(v.name, v.method, v.starts_from, v.pool) for v in rounds] == [
        ("rlhf-v1", "rejection_sampling", "pretrained", "latest"),
        ("rlhf-v2", "rejection_sampling", "pretrained", "latest"),
        ("rlhf-v3", "rejection_sampling", "pretrained", "latest"),
        ("rlhf-v4", "rejection_sampling", "pretrained", "all"),
        ("rlhf-v5", "rejection_sampling", "pretrained", "all"),
    ]
    assert [v.has_ghost_attention for v in rounds] == [False, False, False, True, True]  # §3.3: after V3
    last = PAPER_SCHEDULE[-1]
    assert (last.method, last.starts_from, round_of(PAPER_SCHEDULE, last)) == ("ppo", "rlhf-v5", 5)
    check_schedule(PAPER_SCHEDULE)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([Version(name="a"), Version(name="a")], "'a' is taken"),
        ([Version(name="sft")], "'sft' is taken"),
        ([Version(name="a", starts_from="b"), Version(name="b")], "a starts from 'b'"),
        ([Version(name="a", method="ppo", starts_from="sft")], "needs a rejection_sampling version"),
        ([Version(name="a", method="ghost_attention", starts_from="sft")], "needs a rejection_sampling"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(versions: list[Version], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(versions)


def test_versions_belong_to_the_round_before_them() -> None:
    versions = [
        Version(name="a"),
        Version(name="g", method="ghost_attention", starts_from="a"),
        Version(name="b"),
    ]
    assert [round_of(versions, v) for v in versions] == [1, 1, 2]
