"""Demonstrations: training tasks only, and checks of an answer whose marks are true."""

import re
from collections import Counter

from puna.core.records import Dialog
from puna.sandbox.demonstrations import write_dialogs
from puna.sandbox.language import is_true, read
from puna.sandbox.tasks import family_tasks, question, split_of

N = 3000
DIALOGS = write_dialogs(N, seed=11)
RIGHT, WRONG, BESIDE = "that is right.", "that is wrong.", "that is no answer."


def checks() -> list[Dialog]:
    return [dialog for dialog in DIALOGS if dialog.meta["kind"] == "check"]


def test_the_same_seed_gives_the_same_dialogs() -> None:
    assert write_dialogs(50, seed=3) == write_dialogs(50, seed=3) != write_dialogs(50, seed=4)


def test_no_dialog_asks_a_held_out_question() -> None:
    held_out = {
        question(task, phrasing)
        for family in ("helpful", "borderline", "adversarial")
        for task in family_tasks(family)  # type: ignore[arg-type]
        if split_of(task) == "held_out"
        for phrasing in range(3)
    }
    asked = [message.content for dialog in DIALOGS for message in dialog.messages if message.role == "user"]
    assert not [text for text in asked if any(text.endswith(question) for question in held_out)]


def test_a_check_is_marked_by_the_truth_and_corrected() -> None:
    marks: Counter[str] = Counter()
    n_read = 0
    for dialog in checks():
        asked, answered = (message.content for message in dialog.messages)
        claim = read(asked.removesuffix(" is that right?").rsplit("? ", 1)[-1].rsplit(". ", 1)[-1].strip())
        mark = next(m for m in (RIGHT, WRONG, BESIDE) if answered.startswith(m))
        marks[mark] += 1
        correction = answered.removeprefix(mark).strip()
        if mark == RIGHT:
            assert not correction
        else:
            corrected = read(correction)
            assert corrected is not None
            assert is_true(corrected)
        n_read += claim is not None
        if claim is not None:
            assert is_true(claim) == (mark != WRONG)
    assert n_read > 0.9 * len(checks())
    assert marks[RIGHT] > 0.4 * marks.total() > marks[BESIDE] > 0


def test_a_third_of_the_checks_are_sums_besides_those_drawn_by_chance() -> None:
    """Sums are what fine-tuning forgets first (docs/log.md)."""
    share = sum(bool(re.search(r"\d plus \d", dialog.messages[0].content)) for dialog in checks()) / len(
        checks()
    )
    assert 0.15 * N < len(checks()) < 0.21 * N
    assert 1 / 3 < share < 2 / 3
