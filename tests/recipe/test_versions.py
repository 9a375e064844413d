"""The schedule of versions: the paper's own, and what no run could follow."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from puna.core.config import load_recipe
from puna.recipe.figure4 import plan_figure4
from puna.recipe.settings import Figure4Recipe, builtin_recipe
from puna.recipe.versions import PAPER_SCHEDULE, TAKEN, Version, check_schedule, round_of


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
        ([Version(name="a"), Version(name="A")], "'A' is taken"),
        ([Version(name="reward")], "'reward' is taken"),
        ([Version(name="SFT-variant")], "'SFT-variant' is taken"),
        (
            [Version(name="a"), Version(name="p", method="ppo", starts_from="a", has_ghost_attention=True)],
            "p is made by ppo, which does not use pool and has_ghost_attention",
        ),
        (
            [Version(name="a"), Version(name="g", method="ghost_attention", starts_from="a", pool="all")],
            "g is made by ghost_attention, which does not use pool",
        ),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(versions: list[Version], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(versions)


@pytest.mark.parametrize("name", ["a/b", "..", "", "-a", "a\n", "a b"])
def test_a_version_is_named_as_a_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        Version(name=name)


@pytest.mark.parametrize("recipe", ["sandbox_cpu", "real_cpu"])
def test_no_other_folder_or_box_of_a_run_may_be_a_versions_name(recipe: str) -> None:
    """A version of that name would be written over it, or could not be written after hours of training."""
    settings = load_recipe(builtin_recipe(recipe), Figure4Recipe)
    plan = plan_figure4(settings, out=Path("run"), seed=0)
    names = {step.out.parts[1] for step in plan} | {step.box for step in plan}
    assert names - {version.name for version in settings.versions} <= TAKEN


def test_versions_belong_to_the_round_before_them() -> None:
    versions = [
        Version(name="a"),
        Version(name="g", method="ghost_attention", starts_from="a"),
        Version(name="b"),
    ]
    assert [round_of(versions, v) for v in versions] == [1, 1, 2]
