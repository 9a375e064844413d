"""What needs what, what a box needs, and what runs side by side: all read off the steps' paths."""

from pathlib import Path
from typing import Any

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.stage import Metrics, Stage, stage
from puna.recipe.executor import boxes
from puna.recipe.steps import Step, groups, needed_for, needs

RUN = Path("/run")


class Nothing(Settings):
    """No settings."""


@stage("a")
def train(config: Nothing, context: StageContext, *, data: Path | None = None) -> Metrics:
    """Any stage."""
    return {}


@stage("b")
def measure(config: Nothing, context: StageContext, *, data: Path | None = None) -> Metrics:
    """Any other."""
    return {}


@stage("c")
def sample(config: Nothing, context: StageContext, *, data: Path | None = None) -> Metrics:
    """Any third."""
    return {}


def step(out: str, *reads: str, by: Stage[Any] = train, box: str = "") -> Step:
    inputs = {str(number): RUN / name for number, name in enumerate(reads)}
    return Step(box=box or out, out=RUN / out, stage=by, config=Nothing(), inputs=inputs, seed=0)


def named(plan: list[Step]) -> list[str]:
    return [item.out.relative_to(RUN).as_posix() for item in plan]


def cut(*plan: Step) -> list[list[str]]:
    return [named(group) for group in groups(plan)]


def test_a_step_needs_the_folder_a_file_in_it_or_a_folder_around_it() -> None:
    made = step("samples/v1")
    assert needs(step("x", "samples/v1"), made)
    assert needs(step("x", "samples/v1/selected.jsonl"), made)
    assert needs(step("x", "samples"), made)
    assert not needs(step("x", "samples/v10"), made)
    assert not needs(step("x", "other"), made)
    assert not needs(made, made)


def test_paths_in_lists_and_mappings_count() -> None:
    deep = Step(
        box="x",
        out=RUN / "x",
        stage=train,
        config=Nothing(),
        inputs={"data": [RUN / "a"], "models": {"safety": RUN / "b"}, "role": "c"},
        seed=0,
    )
    assert deep.reads() == [RUN / "a", RUN / "b"]


def test_neighbours_that_need_nothing_of_one_another_run_side_by_side() -> None:
    assert cut(step("a"), step("b"), step("c", "a", "b"), step("d", "c"), step("e", "c")) == [
        ["a", "b"],
        ["c"],
        ["d", "e"],
    ]


def test_a_chain_of_one_stage_is_no_group() -> None:
    assert cut(step("a"), step("b", "a"), step("c", "b")) == [["a"], ["b"], ["c"]]


def test_evaluations_wait_in_the_group_for_the_one_they_are_compared_with() -> None:
    plan = [
        step("gatt", by=sample),
        step("evaluation/sft", by=measure),
        step("evaluation/v1", "evaluation/sft", by=measure),
        step("v2", "gatt"),
    ]
    assert cut(*plan) == [["gatt", "evaluation/sft", "evaluation/v1"], ["v2"]]


def test_what_a_box_needs_and_nothing_else() -> None:
    plan = [
        step("text"),
        step("base", "text"),
        step("pairs"),
        step("reward", "base", "pairs"),
        step("chat", "base"),
    ]
    assert named(needed_for(plan, "reward")) == ["text", "base", "pairs", "reward"]
    assert named(needed_for(plan, "chat")) == ["text", "base", "chat"]
    assert named(needed_for(plan, "pairs")) == ["pairs"]


def test_boxes_stand_in_the_order_in_which_they_are_complete() -> None:
    plan = [
        step("a", box="early"),
        step("e1", box="evaluation"),
        step("b", box="late"),
        step("e2", box="evaluation"),
    ]
    assert boxes(plan) == ["early", "late", "evaluation"]
