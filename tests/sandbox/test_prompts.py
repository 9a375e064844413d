"""Held-out means unseen: no training record asks what an evaluation prompt asks."""

import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.core.records import Message, Prompt
from puna.core.seeding import rng
from puna.sandbox.annotators import SimulatedAnnotator, annotator_pool
from puna.sandbox.attacks import ATTACK_VECTORS, dress
from puna.sandbox.constraints import Constraint, all_constraints, split_of_constraint
from puna.sandbox.demonstrations import write_dialogs
from puna.sandbox.documents import PLANTED, write_documents
from puna.sandbox.oracle import Oracle
from puna.sandbox.prompts import (
    adversarial_prompts,
    borderline_prompts,
    constraint_dialogs,
    draw_task,
    helpful_prompts,
    misread_task,
)
from puna.sandbox.stage import SandboxConfig, _held_out_prompts
from puna.sandbox.tasks import Family, Split, Task, core_claims, family_tasks, question, split_of
from puna.sandbox.writers import SKILLS, write_answer

HELD_OUT_QUESTIONS = {
    dress(task, vector, phrasing)
    for family in ("helpful", "borderline", "adversarial")
    for task in family_tasks(family)  # type: ignore[arg-type]
    if split_of(task) == "held_out"
    for vector in ATTACK_VECTORS
    for phrasing in range(3)
}


def test_every_kind_of_task_is_held_out_and_trained() -> None:
    for family in ("helpful", "borderline", "adversarial"):
        kinds = [(task.kind, split_of(task)) for task in family_tasks(family)]  # type: ignore[arg-type]
        for kind in {kind for kind, _ in kinds}:
            assert kinds.count((kind, "held_out")) >= 2
            assert kinds.count((kind, "train")) >= 4


def test_no_demonstration_asks_a_held_out_question() -> None:
    for dialog in write_dialogs(400, seed=0):
        for message in dialog.messages:
            assert message.content not in HELD_OUT_QUESTIONS


def test_no_document_holds_a_held_out_question() -> None:
    plain = {
        question(task, k)
        for family in ("helpful", "borderline", "adversarial")
        for task in family_tasks(family)  # type: ignore[arg-type]
        if split_of(task) == "held_out"
        for k in range(3)
    }
    documents = write_documents(400, seed=0)
    assert not [q for q in plain if any(q in document.text for document in documents)]


@pytest.mark.parametrize(
    "make", [helpful_prompts, adversarial_prompts, borderline_prompts, constraint_dialogs]
)
def test_training_and_held_out_prompts_share_no_task(make) -> None:
    for split in ("train", "held_out"):
        for prompt in make(80, split=split, seed=3):
            tasks = prompt.meta.get("turn_tasks") or [prompt.meta["task"]]
            assert {split_of(Task.model_validate(task)) for task in tasks} == {split}


def test_held_out_prompts_are_those_that_every_recorded_run_was_measured_on() -> None:
    """240 of each set, as in the quickstart. Who changes them makes old numbers incomparable: raise WORLD_VERSION."""
    prompts = _held_out_prompts(SandboxConfig(n_held_out=240))["held_out"]
    text = "\n".join(_as_first_recorded(prompt) for prompt in prompts)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9dc2e099362c1b68"


def _as_first_recorded(prompt: Prompt) -> str:
    """The prompt in the form that those runs wrote: the tags in meta."""
    meta = {"set": prompt.set, "task": prompt.meta["task"]}
    meta |= {"risk_category": prompt.risk_category} if prompt.risk_category else {}
    meta |= prompt.meta | ({"attack_vector": prompt.attack_vector} if prompt.attack_vector else {})
    fields = prompt.model_dump(include={"id", "messages"}) | {"domain": prompt.guideline, "meta": meta}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def test_prompts_are_the_same_for_the_same_seed_and_differ_otherwise() -> None:
    assert helpful_prompts(20, split="train", seed=1) == helpful_prompts(20, split="train", seed=1)
    assert helpful_prompts(20, split="train", seed=1) != helpful_prompts(20, split="train", seed=2)


def test_held_out_constraints_are_new_combinations_of_known_parts() -> None:
    train = [c for c in all_constraints() if split_of_constraint(c) == "train"]
    held_out = [c for c in all_constraints() if split_of_constraint(c) == "held_out"]
    assert held_out
    assert {c.title for c in held_out} <= {c.title for c in train}
    assert {c.ending for c in held_out} <= {c.ending for c in train}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(all_constraints()), st.integers(0, 10_000))
def test_an_applied_constraint_is_kept_and_comes_off(constraint: Constraint, seed: int) -> None:
    answer = write_answer(Task(kind="fact", subject="goat", relation="eats"), rng(seed, "answer"))
    kept, stripped = constraint.strip(constraint.apply(answer))
    assert kept
    assert stripped == answer
    assert not constraint.strip(answer)[0]


def test_writers_are_uneven_and_experts_are_best() -> None:
    """600 answers each: the smallest true gap is 0.1, its standard error below 0.02."""
    prompts = helpful_prompts(600, split="train", seed=5)
    oracle = Oracle()

    def mean(skill) -> float:
        random_ = rng(7, skill)
        answers = [write_answer(Task.model_validate(p.meta["task"]), random_, skill=skill) for p in prompts]
        return sum(oracle.grade(p, a).helpfulness for p, a in zip(prompts, answers, strict=True)) / len(
            prompts
        )

    means = {skill: mean(skill) for skill in SKILLS}
    assert means["expert"] > means["plain"] > means["terse"] > means["careless"]
    assert means["expert"] < 0.95


def test_documents_carry_the_planted_share_of_each_defect() -> None:
    documents = write_documents(1000, seed=2)
    truths = [document.meta["truth"] for document in documents]
    assert sum("near_duplicate_of" in t for t in truths) == round(1000 * PLANTED["near"])
    assert sum("exact_duplicate_of" in t for t in truths) == round(1000 * PLANTED["exact"])
    assert sum(bool(t.get("personal_information")) for t in truths) == round(1000 * PLANTED["personal"])
    assert len({document.id for document in documents}) == len(documents)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_only_adversarial_prompts_are_tagged_as_likely_to_draw_an_unsafe_answer(split: Split) -> None:
    """Borderline ones look like them, follow the same guideline and are harmless (§4.2.3)."""
    made = {
        make.__name__: {(p.guideline, p.is_safety, p.set) for p in make(20, split=split, seed=0)}
        for make in (helpful_prompts, adversarial_prompts, borderline_prompts, constraint_dialogs)
    }
    assert made == {
        "helpful_prompts": {("helpfulness", False, "helpful")},
        "adversarial_prompts": {("safety", True, "adversarial")},
        "borderline_prompts": {("safety", False, "borderline")},
        "constraint_dialogs": {("helpfulness", False, "constraint")},
    }


def _goat(guideline="helpfulness") -> Prompt:
    task = Task(kind="fact", subject="goat", relation="eats")
    return Prompt(
        id="goat",
        messages=(Message(role="user", content=question(task)),),
        guideline=guideline,
        meta={"task": task.model_dump()},
    )


def test_annotators_agree_on_clear_pairs_and_split_on_close_ones() -> None:
    """200 draws; a fair coin leaves 30..70 % with odds of error below 1e-7."""
    annotator = SimulatedAnnotator(name="simulated-test")
    clear = [
        annotator.compare(_goat(), "the goat eats hay.", "the goat eats corn.", seed=s) for s in range(200)
    ]
    assert all(c is not None and c.chosen.response == "the goat eats hay." for c in clear)
    assert {c.rating for c in clear if c} <= {"significantly_better", "better"}
    close = [annotator.compare(_goat(), "the goat eats hay.", "it eats hay.", seed=s) for s in range(200)]
    left = sum(c is not None and c.chosen.shown_on == "left" for c in close)
    assert 60 <= left <= 140


def test_the_excluded_case_is_dropped_and_safety_is_labelled() -> None:
    """Chosen unsafe with rejected safe never leaves the annotator (§3.2.1)."""
    task = Task(kind="harm_method", subject="burn the miller's cart")
    prompt = Prompt(
        id="x",
        messages=(Message(role="user", content=question(task)),),
        guideline="safety",
        meta={"task": task.model_dump()},
    )
    careless = SimulatedAnnotator(name="simulated-careless", noise=1.5, slip_prob=0.0)
    safe, unsafe = "i can not help with that.", "to burn the miller's cart, use a match."
    results = [careless.compare(prompt, safe, unsafe, seed=s) for s in range(100)]
    assert any(result is None for result in results)
    assert all(r.safety == "chosen_safe_rejected_unsafe" for r in results if r)
    assert all(
        (r.chosen.response, r.chosen.is_safe, r.rejected.is_safe) == (safe, True, False) for r in results if r
    )


def test_annotators_have_different_noise_and_say_they_are_simulated() -> None:
    pool = annotator_pool(4)
    assert len({a.noise for a in pool}) == 4
    assert all(a.name.startswith("simulated") for a in pool)


@pytest.mark.parametrize("family", ["helpful", "borderline"])
def test_a_misread_task_is_another_training_task_of_its_kind(family: Family) -> None:
    random_ = random.Random(5)
    for task in (draw_task(family, "train", random_) for _ in range(300)):
        other = misread_task(task, random_)
        assert (other.kind, other.relation) == (task.kind, task.relation)
        assert split_of(other) == "train"
        differing = set(other.subject.split()) ^ set(task.subject.split())
        assert 1 <= len(differing) <= 2
        assert core_claims(other)[0].subject != core_claims(task)[0].subject
