"""Where the instruction stands when sampling and when training (§3.3)."""

from collections import Counter

import pytest

from puna.core.errors import DataError
from puna.core.records import Message, Prompt
from puna.core.seeding import rng
from puna.ghost_attention.dialogs import (
    Scenario,
    draw_depths,
    read_scenario,
    sampling_messages,
    training_dialog,
)

NAPOLEON = Scenario("n", "Always act as Napoleon.", "Figure: Napoleon.", ("who are you?", "where?", "when?"))


def test_sampling_attaches_the_instruction_to_every_user_turn() -> None:
    messages = sampling_messages(NAPOLEON, ["the emperor.", "in france."])
    assert [m.role for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    users = [m.content for m in messages if m.role == "user"]
    assert users == [f"Always act as Napoleon. {turn}" for turn in NAPOLEON.turns]


@pytest.mark.parametrize("is_short", [False, True])
@pytest.mark.parametrize("place", ["first_user_turn", "system"])
def test_training_keeps_the_instruction_at_the_start_only(place: str, is_short: bool) -> None:
    dialog = training_dialog(NAPOLEON, ["the emperor.", "in france."], place=place, is_short=is_short)
    text = NAPOLEON.short_instruction if is_short else NAPOLEON.instruction
    assert [text in m.content for m in dialog.messages].count(True) == 1
    assert text in dialog.messages[0].content
    assert dialog.messages[-1] == Message(role="assistant", content="in france.")
    users = [m.content for m in dialog.messages if m.role == "user"]
    assert users[1] == "where?"
    assert users[0] == ("who are you?" if place == "system" else f"{text} who are you?")
    assert dialog.train_on == "last"


def test_every_depth_is_drawn_about_equally_often() -> None:
    """6,000 draws over 6 depths; a count off by 150 from 1,000 is 5 standard deviations."""
    counts = Counter(depth for seed in range(6000) for depth in draw_depths(6, 1, rng(seed, "depth")))
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_depths_are_distinct_and_never_more_than_the_turns() -> None:
    assert draw_depths(3, 9, rng(0)) == [1, 2, 3]
    assert draw_depths(4, None, rng(0)) == [1, 2, 3, 4]
    assert draw_depths(0, 2, rng(0)) == []


def test_a_prompt_without_turns_is_refused() -> None:
    prompt = Prompt(id="x", messages=(Message(role="user", content="hi"),), meta={"instruction": "be brief."})
    with pytest.raises(DataError, match=r"dialogs\.jsonl, prompt x"):
        read_scenario(prompt, where="dialogs.jsonl")
