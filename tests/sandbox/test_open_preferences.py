"""Open preferences are written by people on training tasks, and over-cautious answers lose."""

import re

from puna.sandbox.annotators import SimulatedAnnotator
from puna.sandbox.constraints import ENDINGS
from puna.sandbox.language import REFUSALS
from puna.sandbox.open_preferences import open_comparisons
from puna.sandbox.tasks import family_tasks, question, split_of

ANNOTATORS = (SimulatedAnnotator(name="simulated-a"), SimulatedAnnotator(name="simulated-b"))


def _refuses(text: str) -> bool:
    return any(text.startswith(refusal) for refusal in REFUSALS)


def test_the_same_seed_gives_the_same_pairs() -> None:
    assert open_comparisons(60, seed=1, annotators=ANNOTATORS) == open_comparisons(
        60, seed=1, annotators=ANNOTATORS
    )
    assert open_comparisons(60, seed=1, annotators=ANNOTATORS) != open_comparisons(
        60, seed=2, annotators=ANNOTATORS
    )


def test_no_pair_asks_a_held_out_question() -> None:
    held_out = {
        question(task, phrasing)
        for family in ("helpful", "borderline", "adversarial")
        for task in family_tasks(family)  # type: ignore[arg-type]
        if split_of(task) == "held_out"
        for phrasing in range(3)
    }
    for comparison in open_comparisons(300, seed=0, annotators=ANNOTATORS):
        assert comparison.prompt[-1].content not in held_out


def test_open_pairs_say_so_and_safety_pairs_label_both_sides() -> None:
    pairs = open_comparisons(200, seed=0, annotators=ANNOTATORS)
    assert {pair.origin for pair in pairs} == {"open"}
    for pair in pairs:
        is_labelled = [side.is_safe is not None for side in (pair.chosen, pair.rejected)]
        assert is_labelled == [pair.guideline == "safety"] * 2
        assert (pair.safety is not None) == (pair.guideline == "safety")


def test_refusals_of_look_alike_prompts_mostly_lose() -> None:
    """Where just one side refuses a borderline prompt, the other should win; noise leaves a few exceptions."""
    wins, n = 0, 0
    for comparison in open_comparisons(1200, seed=3, annotators=ANNOTATORS):
        refuses = [_refuses(side.response) for side in (comparison.chosen, comparison.rejected)]
        if comparison.meta["prompt_id"].startswith("borderline") and refuses[0] != refuses[1]:
            n += 1
            wins += refuses[0]
    assert n > 50
    assert wins / n < 0.25


def test_true_answers_to_another_question_are_among_the_losers() -> None:
    """A reward model that never saw one could not tell an answer from the answer (docs/log.md)."""
    wins, n = 0, 0
    for comparison in open_comparisons(1500, seed=4, annotators=ANNOTATORS):
        asked = comparison.prompt[-1].content
        match = re.search(r"(\d plus \d)", asked)
        if not match or comparison.guideline != "helpfulness":
            continue
        sides = [comparison.chosen.response, comparison.rejected.response]
        other = [bool(re.search(r"\d plus \d is", side)) and match[1] not in side for side in sides]
        if other[0] != other[1]:
            n += 1
            wins += other[0]
    assert n > 20
    assert wins / n < 0.1


def test_answers_by_another_instruction_lose_to_those_that_keep_it() -> None:
    wins, n = 0, 0
    for comparison in open_comparisons(3000, seed=5, annotators=ANNOTATORS):
        asked = re.search(r"(?:end with|ending:) (\w+)\.", comparison.prompt[-1].content)
        if not asked or comparison.guideline != "helpfulness":
            continue
        ends = [side.response.split()[-1] for side in (comparison.chosen, comparison.rejected)]
        kept = [end == f"{asked[1]}." for end in ends]
        is_other = [end.rstrip(".") in ENDINGS and not k for end, k in zip(ends, kept, strict=True)]
        if (kept[0] and is_other[1]) or (kept[1] and is_other[0]):
            n += 1
            wins += kept[0]
    assert n > 20
    assert wins / n > 0.75
