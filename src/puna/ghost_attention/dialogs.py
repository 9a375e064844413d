"""The two faces of a Ghost Attention dialog: how it is sampled and how it is trained (§3.3)."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from puna.core.errors import DataError
from puna.core.records import Dialog, Message, Prompt

__all__ = ["Scenario", "draw_depths", "read_scenario", "sampling_messages", "training_dialog"]


class Scenario(NamedTuple):
    """An instruction to hold throughout a dialog, and what the user says turn by turn."""

    id: str
    instruction: str
    short_instruction: str
    turns: tuple[str, ...]


def read_scenario(prompt: Prompt, *, where: str) -> Scenario:
    """The scenario in a prompt's meta.

    Raises:
        DataError: meta lacks a part or holds it in another form.
    """
    instruction, turns = prompt.meta.get("instruction"), prompt.meta.get("turns")
    is_whole = isinstance(instruction, str) and instruction and isinstance(turns, list) and turns
    if not is_whole or not all(isinstance(turn, str) and turn for turn in turns or ()):
        raise DataError(
            where=f"{where}, prompt {prompt.id}",
            expected="meta with instruction (text) and turns (the user's turns, a list of texts)",
            got=f"keys {sorted(prompt.meta)}",
            fix="Write the instruction and the turns into the prompt's meta.",
        )
    short = prompt.meta.get("short_instruction") or instruction
    return Scenario(prompt.id, str(instruction), str(short), tuple(turns or ()))


def sampling_messages(scenario: Scenario, answers: Sequence[str]) -> tuple[Message, ...]:
    """Step 1 (§3.3): the instruction concatenated to every user turn, up to the turn that is answered next."""
    messages = []
    for turn, text in enumerate(scenario.turns[: len(answers) + 1]):
        messages.append(Message(role="user", content=f"{scenario.instruction} {text}"))
        if turn < len(answers):
            messages.append(Message(role="assistant", content=answers[turn]))
    return tuple(messages)


def training_dialog(
    scenario: Scenario,
    answers: Sequence[str],
    *,
    place: Literal["first_user_turn", "system"],
    is_short: bool,
    last_token_ids: Sequence[int] | None = None,
) -> Dialog:
    """Step 2 (§3.3): the instruction in the first turn only, and a loss on the last answer only.

    The earlier answers were made with the instruction in sight of every turn, so learning them here would teach
    what this prompt does not show.

    Args:
        last_token_ids: The last answer as it was sampled.
    """
    instruction = scenario.short_instruction if is_short else scenario.instruction
    messages = [Message(role="system", content=instruction)] if place == "system" else []
    for turn, (text, answer) in enumerate(zip(scenario.turns, answers, strict=False)):
        is_prefixed = turn == 0 and place == "first_user_turn"
        messages.append(Message(role="user", content=f"{instruction} {text}" if is_prefixed else text))
        messages.append(Message(role="assistant", content=answer))
    return Dialog(
        id=f"{scenario.id}-turn-{len(answers)}",
        messages=tuple(messages),
        train_on="last",
        answer_token_ids=None if last_token_ids is None else tuple(last_token_ids),
        meta={"n_turns": len(answers), "instruction": scenario.instruction, "is_short": is_short},
    )


def draw_depths(n_turns: int, n_cuts: int | None, random_: random.Random) -> list[int]:
    """At how many turns the dialog ends, each depth equally likely and none twice; None means at every depth."""
    depths = range(1, n_turns + 1)
    return sorted(random_.sample(depths, min(n_turns, n_turns if n_cuts is None else n_cuts)))
