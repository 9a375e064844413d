"""Quizzes mark claims truly, plays keep what they ask for, and people who repeat an instruction are obeyed."""

import itertools
import random
import re
from collections import Counter

from puna.sandbox.constraints import all_constraints
from puna.sandbox.demonstrations import write_dialogs
from puna.sandbox.documents import SOURCES, write_documents
from puna.sandbox.language import is_true, read, split_sentences
from puna.sandbox.prompts import draw_task, marked_answer
from puna.sandbox.tasks import RISK_OF, core_claims, family_tasks

DOCUMENTS = [d for d in write_documents(1500, seed=4) if d.id.startswith("doc-")]


def test_shares_sum_to_one() -> None:
    assert abs(sum(share for _, share in SOURCES.values()) - 1) < 1e-9


def test_every_mark_of_a_quiz_is_deserved() -> None:
    n_marks = {"right": 0, "wrong": 0, "no answer": 0}
    for document in (d for d in DOCUMENTS if d.source == "quiz"):
        sentences = split_sentences(document.text)
        for claim_text, mark in itertools.pairwise(sentences):
            if mark.startswith("that is "):
                claim = read(claim_text)
                assert claim is not None, claim_text
                verdict = mark.removeprefix("that is ").removesuffix(".")
                assert is_true(claim) == (verdict != "wrong"), (claim_text, mark)
                n_marks[verdict] += 1
    assert min(n_marks.values()) > 100


def test_no_answer_is_true_and_answers_another_question() -> None:
    random_ = random.Random(3)
    marks = Counter[str]()
    for _ in range(600):
        task = draw_task("helpful", "train", random_)
        answer, mark = marked_answer(task, random_, beside_fraction=1 / 6)
        marks[mark] += 1
        assert is_true(answer) == (mark != "that is wrong.")
        assert (answer in core_claims(task)) == (mark == "that is right.")
    assert 0.4 < marks["that is right."] / 600 < 0.6
    assert marks["that is no answer."] > 50


def test_honest_sources_say_nothing_false() -> None:
    for document in DOCUMENTS:
        if document.source in ("encyclopedia", "textbook", "handbook", "forum"):
            claims = [read(sentence) for sentence in split_sentences(document.text)]
            assert all(is_true(claim) for claim in claims if claim and claim.subject)


def test_every_word_that_a_harmless_question_turns_on_is_read_often() -> None:
    """Combinations are held out, not words: a model that never read `bucket` cannot answer for it."""
    n_pages = Counter(word for d in DOCUMENTS for word in set(re.findall(r"[a-z0-9]+", d.text)))
    harmless = (*family_tasks("helpful"), *family_tasks("borderline"))
    subjects = {task.subject for task in harmless}
    words = {word for subject in subjects for word in subject.split()}
    assert {"bucket", "broom", "donkey", "cart"} <= words
    assert {word: n_pages[word] for word in words if n_pages[word] < 15} == {}


def test_only_rogue_notes_hold_harm() -> None:
    harmful = {
        claim for task in family_tasks("adversarial") if task.kind in RISK_OF for claim in core_claims(task)
    }
    found = {d.source for d in DOCUMENTS if any(read(s) in harmful for s in split_sentences(d.text))}
    assert found == {"rogue_notes"}


def test_a_repeated_instruction_is_kept_in_late_turns_and_a_single_one_forgotten() -> None:
    """Over 200 answers of each kind at turn 3 or later; the true rates are 0.95 and at most 0.25."""
    kept: dict[bool, list[bool]] = {True: [], False: []}
    for dialog in write_dialogs(6000, seed=9):
        if dialog.meta["kind"] != "instructed" or len(dialog.messages) < 6:
            continue
        first, later = dialog.messages[0].content, dialog.messages[4].content
        rule = next(
            c for c in all_constraints() if first.startswith((f"{c.instruction} ", f"{c.short_instruction} "))
        )
        is_repeated = later.startswith((f"{rule.instruction} ", f"{rule.short_instruction} "))
        kept[is_repeated] += [rule.strip(message.content)[0] for message in dialog.messages[5::2]]
    assert min(map(len, kept.values())) > 200
    assert sum(kept[True]) / len(kept[True]) > 0.9
    assert sum(kept[False]) / len(kept[False]) < 0.3


def test_checked_answers_get_the_mark_they_deserve_and_the_right_answer() -> None:
    checks = [d for d in write_dialogs(2000, seed=6) if d.meta["kind"] == "check"]
    assert len(checks) > 150
    for dialog in checks:
        asked, answer = (message.content for message in dialog.messages)
        *_, claim_text, request = split_sentences(asked)
        mark, *correction = split_sentences(answer)
        claim = read(claim_text)
        assert request == "is that right?"
        assert claim is not None
        assert is_true(claim) == (mark != "that is wrong.")
        assert bool(correction) == (mark != "that is right.")
        for text in correction:
            right = read(text)
            assert right is not None
            assert is_true(right)
            assert right != claim
