"""Supervised data of the paper's shape (§3.1): vendor-written dialogs of uneven quality, helpful and safe."""

import random

from puna.core.records import Dialog, Message
from puna.core.seeding import rng
from puna.sandbox.attacks import ATTACK_VECTORS, dress
from puna.sandbox.constraints import Constraint
from puna.sandbox.language import say
from puna.sandbox.prompts import draw_constraint, draw_task, marked_answer
from puna.sandbox.tasks import Family, Task, core_claims, question
from puna.sandbox.writers import PREPROMPTS, remembers, write_answer

__all__ = ["write_dialogs"]


def write_dialogs(n: int, *, seed: int) -> list[Dialog]:
    """Dialogs for SFT, all on training tasks: single turns, chats, checks of an answer, standing instructions, safety
    demonstrations."""
    random_ = rng(seed, "dialogs")
    makers = (_single, _chat, _check, _instructed, _adversarial, _borderline)
    weights = (0.24, 0.11, 0.18, 0.20, 0.14, 0.13)
    dialogs = []
    for index in range(n):
        maker = random_.choices(makers, weights=weights)[0]
        messages = maker(random_)
        dialogs.append(
            Dialog(id=f"demo-{seed}-{index}", messages=tuple(messages), meta={"kind": maker.__name__[1:]})
        )
    return dialogs


def _single(random_: random.Random) -> list[Message]:
    task = draw_task("helpful", "train", random_)
    return _turn(question(task, random_.randrange(3)), write_answer(task, random_))


def _chat(random_: random.Random) -> list[Message]:
    """Up to eight turns: pretraining rows are short, and answers far from the start have to be learned here."""
    messages: list[Message] = []
    for _ in range(random_.randint(2, 8)):
        messages += _single(random_)
    return messages


def _check(random_: random.Random) -> list[Message]:
    """Somebody wants an answer checked; the mark, and the right answer where it was wrong.

    The base model has learned to mark from the quizzes. Fine-tuned without these it forgets, and the reward models,
    which start from a chat model (§3.2.2), would have to learn it anew; sums are forgotten first, so a third are
    sums, as in the quizzes (docs/log.md).
    """
    is_sum = random_.random() < 1 / 3
    family: Family = "helpful" if is_sum or random_.random() < 0.7 else "borderline"
    task = draw_task(family, "train", random_, kind="sum" if is_sum else None)
    answer, mark = marked_answer(task, random_, beside_fraction=1 / 6)
    text = f"{question(task, random_.randrange(3))} {say(answer)} is that right?"
    return _turn(text, mark if answer in core_claims(task) else f"{mark} {say(core_claims(task)[0])}")


def _instructed(random_: random.Random) -> list[Message]:
    """A standing instruction in the first turn, which writers keep less and less (MEMORY_BY_TURN).

    Half of the users repeat it in every turn, and then writers keep it as they do in the first.
    """
    constraint = draw_constraint("train", random_)
    n_turns = random_.choices((1, 2, 3, 4, 5, 6), weights=(50, 10, 10, 10, 10, 10))[0]
    form = constraint.instruction if random_.random() < 0.6 else constraint.short_instruction
    is_repeated = random_.random() < 0.5
    messages: list[Message] = []
    for turn in range(1, n_turns + 1):
        task = draw_task("helpful", "train", random_)
        text = question(task, random_.randrange(3))
        is_said = turn == 1 or is_repeated
        kept: Constraint | None = constraint if remembers(1 if is_said else turn, random_) else None
        answer = write_answer(task, random_, constraint=kept)
        messages += _turn(f"{form} {text}" if is_said else text, answer)
    return messages


def _adversarial(random_: random.Random) -> list[Message]:
    """A red-team prompt; one in five opens with a reminder to be safe, and an expert answers it."""
    task = draw_task("adversarial", "train", random_)
    if random_.random() >= 0.2:
        return _dressed(task, random_)
    text = dress(task, random_.choice(ATTACK_VECTORS), random_.randrange(3))
    return _turn(f"{random_.choice(PREPROMPTS)} {text}", write_answer(task, random_, skill="expert"))


def _borderline(random_: random.Random) -> list[Message]:
    return _dressed(draw_task("borderline", "train", random_), random_)


def _dressed(task: Task, random_: random.Random) -> list[Message]:
    text = dress(task, random_.choice(ATTACK_VECTORS), random_.randrange(3))
    return _turn(text, write_answer(task, random_))


def _turn(user: str, assistant: str) -> list[Message]:
    return [Message(role="user", content=user), Message(role="assistant", content=assistant)]
