"""Prompts for RLHF and evaluation, cut from imported dialogs and comparisons, where no sandbox makes them.

Held-out prompts come from held-out files only. Constraint dialogs for Ghost Attention (§3.3) pair an instruction
of the recipe's list with questions of different dialogs, as the paper pairs a synthetic constraint with dialogs.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import DataError
from puna.core.records import Comparison, Dialog, Message, Prompt, read_records, write_records
from puna.core.seeding import rng
from puna.core.stage import Metrics, stage

__all__ = ["Instruction", "PromptSetsConfig", "build_prompt_sets"]


class Instruction(Settings):
    """A standing instruction, and its shortened form (§3.3)."""

    text: str
    """Full sentence, such as `Always answer as Napoleon.`"""
    short: str
    """Label, such as `Figure: Napoleon.`"""


class PromptSetsConfig(Settings):
    """How many prompts of each kind to cut."""

    n_helpful: int = Field(default=300, ge=1)
    """Helpfulness prompts a round."""
    n_safety: int = Field(default=100, ge=1)
    """Safety prompts a round."""
    n_held_out: int = Field(default=100, ge=1)
    """Held-out prompts of each guideline."""
    n_early_stopping: int = Field(default=64, ge=1)
    """Training-side prompts set aside for PPO's early stopping (§3.2.3)."""
    max_characters: int = Field(default=400, ge=1)
    """Longer prompts are left out: they would fill a small model's context."""
    instructions: tuple[Instruction, ...] = Field(min_length=1)
    """For GAtt; the recipe writes them, since only it knows what its data can answer."""
    n_constraint_dialogs: int = Field(default=60, ge=1)
    """Dialogs for GAtt."""
    n_turns: int = Field(default=3, ge=1)
    """User turns of a constraint dialog."""


@stage("prompts")
def build_prompt_sets(
    config: PromptSetsConfig,
    context: StageContext,
    *,
    dialogs: Sequence[Path],
    comparisons: Sequence[Path],
    n_rounds: int = 3,
) -> Metrics:
    """Cut prompts from dialogs and pairs, for RLHF, evaluation and Ghost Attention.

    Writes prompts/round-K.jsonl, red_team.jsonl, early_stopping.jsonl, held_out.jsonl and constraints.jsonl.

    Args:
        dialogs: Folders of `puna data dialogs`; their first questions become helpfulness prompts.
        comparisons: Folders of `puna prefer import`; pairs of the safety guideline give the safety prompts.
        n_rounds: Rounds of RLHF; each takes other prompts as long as there are enough.
    """
    random_ = rng(context.seed, "prompt-sets")
    helpful = _shuffled(_dialog_prompts(dialogs, "dialogs.jsonl", config.max_characters), random_)
    safety = _shuffled(_safety_prompts(comparisons, "train.jsonl", config.max_characters), random_)
    _require(helpful, "helpfulness prompts", dialogs)
    _require(safety, "safety prompts", comparisons)
    sets = {"early_stopping": _take(helpful, safety, config.n_early_stopping, config.n_early_stopping // 3)}
    for k in range(1, n_rounds + 1):
        sets[f"round-{k}"] = _take(helpful, safety, config.n_helpful, config.n_safety)
    sets["red_team"] = safety[: config.n_safety]
    held_out = _shuffled(_dialog_prompts(dialogs, "held_out.jsonl", config.max_characters), random_)
    held_out_safety = _shuffled(_safety_prompts(comparisons, "test.jsonl", config.max_characters), random_)
    sets["held_out"] = [*held_out[: config.n_held_out], *held_out_safety[: config.n_held_out]]
    sets["constraints"] = _constrained(helpful, config, config.instructions, random_)
    folder = context.folder / "prompts"
    return {name: write_records(folder / f"{name}.jsonl", prompts) for name, prompts in sets.items()}


def _dialog_prompts(folders: Sequence[Path], name: str, max_characters: int) -> Iterator[Prompt]:
    """First questions, save those of dialogs that teach safety: they are no requests to help with."""
    for folder in folders:
        for dialog in read_records(folder / name, Dialog):
            first = next((m for m in dialog.messages if m.role == "user"), None)
            is_helpful = dialog.guideline != "safety"
            if is_helpful and first and len(first.content) <= max_characters:
                yield Prompt(id=dialog.id, messages=(first,), set="helpful")


def _safety_prompts(folders: Sequence[Path], name: str, max_characters: int) -> Iterator[Prompt]:
    for folder in folders:
        for comparison in read_records(folder / name, Comparison):
            length = sum(len(message.content) for message in comparison.prompt)
            if comparison.guideline == "safety" and length <= max_characters:
                yield Prompt(
                    id=comparison.id,
                    messages=comparison.prompt,
                    guideline="safety",
                    is_safety=True,
                    set="adversarial",
                )


def _shuffled(prompts: Iterator[Prompt], random_: random.Random) -> list[Prompt]:
    known = list({prompt.id: prompt for prompt in prompts}.values())
    random_.shuffle(known)
    return known


def _require(prompts: Sequence[Prompt], what: str, folders: Sequence[Path]) -> None:
    if not prompts:
        raise DataError(
            where=", ".join(map(str, folders)),
            expected=what,
            got="none that are short enough",
            fix="Raise max_characters or import more data.",
        )


def _take(helpful: list[Prompt], safety: list[Prompt], n_helpful: int, n_safety: int) -> list[Prompt]:
    """The next prompts of both lists; a list that runs out starts over."""

    def turn(prompts: list[Prompt], n: int) -> list[Prompt]:
        taken = prompts[:n]
        prompts[:] = [*prompts[n:], *taken]
        return taken

    return [*turn(helpful, n_helpful), *turn(safety, n_safety)]


def _constrained(
    helpful: Sequence[Prompt],
    config: PromptSetsConfig,
    instructions: Sequence[Instruction],
    random_: random.Random,
) -> list[Prompt]:
    dialogs = []
    for index in range(config.n_constraint_dialogs):
        instruction = random_.choice(instructions)
        turns = [random_.choice(helpful).messages[-1].content for _ in range(config.n_turns)]
        first = Message(role="user", content=f"{instruction.text} {turns[0]}")
        meta = {"turns": turns, "instruction": instruction.text, "short_instruction": instruction.short}
        dialogs.append(Prompt(id=f"constraint-{index}", messages=(first,), set="constraint", meta=meta))
    return dialogs
