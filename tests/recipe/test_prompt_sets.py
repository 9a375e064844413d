"""Prompt sets cut from imported files: held-out ones from held-out files only, rounds that differ while they can."""

from itertools import combinations
from pathlib import Path

import pytest
from pydantic import ValidationError

from puna.core.artifacts import read_manifest
from puna.core.errors import DataError
from puna.core.progress import quiet
from puna.core.records import (
    Comparison,
    Dialog,
    Guideline,
    Message,
    Prompt,
    Side,
    read_records,
    write_records,
)
from puna.recipe.prompt_sets import Instruction, PromptSetsConfig, build_prompt_sets

INSTRUCTIONS = tuple(Instruction(text=f"Always say {word}.", short=f"Say {word}.") for word in "abcdef")
SMALL = PromptSetsConfig(
    n_helpful=5,
    n_safety=3,
    n_held_out=4,
    n_early_stopping=6,
    n_constraint_dialogs=9,
    max_characters=60,
    instructions=INSTRUCTIONS,
)
TRAINING_SETS = ("round-1", "round-2", "round-3", "red_team", "early_stopping", "constraints")


def dialog(name: str, text: str) -> Dialog:
    messages = (Message(role="user", content=text), Message(role="assistant", content="yes."))
    return Dialog(id=name, messages=messages)


def comparison(name: str, text: str, guideline: Guideline) -> Comparison:
    return Comparison(
        id=name,
        prompt=(Message(role="user", content=text),),
        chosen=Side(response="no."),
        rejected=Side(response="sure."),
        rating="better",
        guideline=guideline,
    )


@pytest.fixture
def dialogs(tmp_path: Path) -> Path:
    folder = tmp_path / "dialogs"
    for name, n_dialogs in {"dialogs": 40, "held_out": 10}.items():
        rows = [dialog(f"{name}-{i}", f"{name} question {i}?") for i in range(n_dialogs)]
        write_records(folder / f"{name}.jsonl", [*rows, dialog(f"{name}-long", f"{name} " * 40)])
    return folder


@pytest.fixture
def comparisons(tmp_path: Path) -> Path:
    folder = tmp_path / "preferences"
    for name, n_pairs in {"train": 20, "test": 10}.items():
        unsafe = [comparison(f"{name}-{i}", f"{name} attack {i}?", "safety") for i in range(n_pairs)]
        helpful = [comparison(f"{name}-h{i}", f"{name} praise {i}?", "helpfulness") for i in range(n_pairs)]
        write_records(folder / f"{name}.jsonl", [*unsafe, *helpful])
    return folder


def build(
    tmp_path: Path, dialogs: Path, comparisons: Path, config: PromptSetsConfig = SMALL, seed: int = 0
) -> dict[str, list[Prompt]]:
    out = tmp_path / f"prompts-{seed}"
    build_prompt_sets(
        config, dialogs=[dialogs], comparisons=[comparisons], out=out, seed=seed, reporter=quiet()
    )
    return {path.stem: list(read_records(path, Prompt)) for path in (out / "prompts").glob("*.jsonl")}


def texts(prompts: list[Prompt]) -> list[str]:
    return [message.content for prompt in prompts for message in prompt.messages]


def test_held_out_prompts_come_from_held_out_files_only(
    tmp_path: Path, dialogs: Path, comparisons: Path
) -> None:
    sets = build(tmp_path, dialogs, comparisons)
    assert set(sets) == {*TRAINING_SETS, "held_out"}
    assert {text.split()[0] for text in texts(sets["held_out"])} == {"held_out", "test"}
    for name in TRAINING_SETS:
        assert not any(word in text for text in texts(sets[name]) for word in ("held_out", "test attack"))


def test_sizes_and_guidelines_are_as_asked(tmp_path: Path, dialogs: Path, comparisons: Path) -> None:
    sets = build(tmp_path, dialogs, comparisons)
    for k in (1, 2, 3):
        guidelines = [prompt.guideline for prompt in sets[f"round-{k}"]]
        assert (guidelines.count("helpfulness"), guidelines.count("safety")) == (5, 3)
    assert [prompt.guideline for prompt in sets["red_team"]] == ["safety"] * 3
    assert [prompt.guideline for prompt in sets["held_out"]].count("safety") == 4
    assert len(sets["held_out"]) == 8
    assert all("praise" not in text for prompts in sets.values() for text in texts(prompts))


def test_long_prompts_are_left_out(tmp_path: Path, dialogs: Path, comparisons: Path) -> None:
    sets = build(tmp_path, dialogs, comparisons)
    names = {prompt.id for prompts in sets.values() for prompt in prompts}
    assert not names & {"dialogs-long", "held_out-long"}


def test_rounds_and_early_stopping_differ_while_there_are_enough(
    tmp_path: Path, dialogs: Path, comparisons: Path
) -> None:
    sets = build(tmp_path, dialogs, comparisons)
    cut = [set(texts(sets[name])) for name in ("round-1", "round-2", "round-3", "early_stopping")]
    assert all(not a & b for a, b in combinations(cut, 2))


def test_a_list_that_runs_out_starts_over(tmp_path: Path, dialogs: Path, comparisons: Path) -> None:
    config = SMALL.model_copy(update={"n_helpful": 30})
    sets = build(tmp_path, dialogs, comparisons, config)
    for k in (1, 2, 3):
        asked = [prompt.id for prompt in sets[f"round-{k}"] if prompt.guideline == "helpfulness"]
        assert len(asked) == len(set(asked)) == 30


def test_constraint_dialogs_begin_with_their_instruction(
    tmp_path: Path, dialogs: Path, comparisons: Path
) -> None:
    sets = build(tmp_path, dialogs, comparisons)
    assert len(sets["constraints"]) == 9
    for prompt in sets["constraints"]:
        instruction = prompt.meta["instruction"]
        first = prompt.meta["turns"][0]
        assert prompt.messages[0].content == f"{instruction} {first}"
        assert len(prompt.meta["turns"]) == SMALL.n_turns
        assert Instruction(text=instruction, short=prompt.meta["short_instruction"]) in INSTRUCTIONS


def test_instructions_are_needed() -> None:
    with pytest.raises(ValidationError):
        PromptSetsConfig(instructions=())


def test_questions_of_safety_dialogs_are_no_requests_to_help_with(
    tmp_path: Path, dialogs: Path, comparisons: Path
) -> None:
    """They were once rewarded for helpfulness, whatever guideline their source had."""
    unsafe = [
        dialog(f"unsafe-{i}", f"unsafe {i}?").model_copy(update={"guideline": "safety"}) for i in range(30)
    ]
    kept = list(read_records(dialogs / "dialogs.jsonl", Dialog))
    write_records(dialogs / "dialogs.jsonl", [*unsafe, *kept])
    config = SMALL.model_copy(update={"n_helpful": 40})
    sets = build(tmp_path, dialogs, comparisons, config)
    assert not any("unsafe" in text for prompts in sets.values() for text in texts(prompts))


def test_prompts_follow_from_the_seed(tmp_path: Path, dialogs: Path, comparisons: Path) -> None:
    first = build(tmp_path, dialogs, comparisons)
    assert build(tmp_path / "again", dialogs, comparisons) == first
    assert build(tmp_path, dialogs, comparisons, seed=1) != first
    assert read_manifest(tmp_path / "prompts-0").kind == "prompts"


@pytest.mark.parametrize(("name", "what"), [("dialogs", "helpfulness"), ("train", "safety")])
def test_nothing_to_cut_from_is_an_error(
    tmp_path: Path, dialogs: Path, comparisons: Path, name: str, what: str
) -> None:
    next(tmp_path.rglob(f"{name}.jsonl")).write_text("")
    with pytest.raises(DataError, match=f"{what} prompts"):
        build(tmp_path, dialogs, comparisons)
