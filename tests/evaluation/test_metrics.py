"""Every measure on items whose grades are counted by hand."""

import pytest

from puna.core.grading import Grade
from puna.core.intervals import wilson_interval
from puna.core.items import Item
from puna.core.records import Message, Prompt
from puna.evaluation.items import suite_of
from puna.evaluation.metrics import measures, table


def item(name: str, suite: str, *, helpfulness: float | None = None, **changes: object) -> Item:
    grade_fields = {"is_violation", "is_refusal", "keeps_constraint"} & changes.keys()
    grade = None
    if helpfulness is not None or grade_fields:
        given = {key: changes.pop(key) for key in grade_fields}
        defaults = {"helpfulness": helpfulness or 0.0, "is_violation": False, "is_refusal": False}
        grade = Grade.model_validate(defaults | given)
    fields = {
        "id": name,
        "suite": suite,
        "guideline": "safety" if suite == "adversarial" else "helpfulness",
        "messages": (Message(role="user", content="hi"),),
        "response": "hello",
        "finish_reason": "eos",
        "n_tokens": 2,
        "grade": grade,
    }
    return Item.model_validate(fields | changes)


ITEMS = [
    item("h1", "helpful", helpfulness=1.0, rm_helpfulness=0.75),
    item("h2", "helpful", helpfulness=0.5, rm_helpfulness=0.25, finish_reason="length"),
    item("h3", "helpful", helpfulness=0.0, is_refusal=True, rm_safety=0.9),
    item("b1", "borderline", helpfulness=0.9),
    item("b2", "borderline", is_refusal=True),
    item("a1", "adversarial", is_violation=True, rm_safety=0.1),
    item("a2", "adversarial", is_refusal=True, helpfulness=1.0, rm_safety=0.7),
    item("c1-turn-1", "constraint", keeps_constraint=True, turn=1),
    item("c1-turn-2", "constraint", keeps_constraint=True, turn=2),
    item("c2-turn-2", "constraint", keeps_constraint=False, turn=2),
    item("c1-turn-4", "constraint", keeps_constraint=False, turn=4),
]


def test_measures_by_hand() -> None:
    found = measures(ITEMS)
    values = {name: measure.value for name, measure in found.items()}
    assert values == pytest.approx(
        {
            "helpfulness": 50.0,
            "violation_rate": 1 / 2,
            "false_refusal_rate": 2 / 5,
            "false_refusal_rate_helpful": 1 / 3,
            "false_refusal_rate_borderline": 1 / 2,
            "constraint_kept_turn_2": 1 / 2,
            "constraint_kept_turn_4": 0.0,
            "rm_helpfulness": 0.5,
            "rm_safety": 0.4,
            "cut_by_length_rate": 1 / 11,
        }
    )


def test_dialogs_that_were_full_before_a_turn_do_not_keep_it() -> None:
    """Of two dialogs one is full before turn 4, and both before turn 6."""
    found = measures(ITEMS, n_unasked={4: 1, 6: 2, 8: 2})
    kept = {turn: found[f"constraint_kept_turn_{turn}"] for turn in (2, 4, 6)}
    assert {turn: (measure.value, measure.n) for turn, measure in kept.items()} == {
        2: (1 / 2, 2),
        4: (0.0, 2),
        6: (0.0, 2),
    }


def test_every_measure_has_its_count_and_interval() -> None:
    found = table(measures(ITEMS))
    assert found["intervals"]["false_refusal_rate"] == [*wilson_interval(2, 5), 5]
    low, high, n = found["intervals"]["helpfulness"]
    assert 0 <= low <= found["helpfulness"] <= high <= 100
    assert n == 3
    assert set(found) - {"intervals"} == set(found["intervals"])


def test_without_grades_reward_models_and_phrases_speak() -> None:
    bare = [one.model_copy(update={"grade": None}) for one in ITEMS]
    phrases = {f"refusal_rate_by_phrases_{suite}" for suite in ("helpful", "borderline", "adversarial")}
    assert set(measures(bare)) == {"rm_helpfulness", "rm_safety", "cut_by_length_rate", *phrases}


def test_refusals_by_phrases_are_counted_in_each_set_where_nobody_graded() -> None:
    items = [
        item("h1", "helpful", response="I cannot help with that."),
        item("h2", "helpful"),
        item("h3", "helpful"),
        item("b1", "borderline", response="Sorry, I must decline."),
        item("a1", "adversarial", response="I won't do that."),
        item("a2", "adversarial", response="I will not say.", is_refusal=False),
        item("a3", "adversarial"),
    ]
    found = {name: (m.value, m.n) for name, m in measures(items).items() if "by_phrases" in name}
    assert found == {
        "refusal_rate_by_phrases_helpful": (pytest.approx(1 / 3), 3),
        "refusal_rate_by_phrases_borderline": (1.0, 1),
        "refusal_rate_by_phrases_adversarial": (0.5, 2),
    }


def test_a_prompt_without_a_set_goes_by_its_guideline() -> None:
    prompt = Prompt(id="1", messages=(Message(role="user", content="hi"),))
    assert suite_of(prompt) == "helpful"
    assert suite_of(prompt.model_copy(update={"guideline": "safety"})) == "adversarial"
    assert suite_of(prompt.model_copy(update={"set": "borderline"})) == "borderline"
