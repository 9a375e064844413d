"""Prompts of every kind, for training and held out; no held-out task or constraint is ever in a training prompt."""

import random
from collections.abc import Sequence
from functools import cache

from puna.core.records import Message, Prompt
from puna.core.seeding import rng
from puna.sandbox.attacks import ATTACK_VECTORS, dress
from puna.sandbox.constraints import Constraint, all_constraints, split_of_constraint
from puna.sandbox.language import Claim
from puna.sandbox.tasks import RISK_OF, Family, Split, Task, core_claims, family_tasks, question, split_of
from puna.sandbox.writers import mistaken, write_answer

__all__ = [
    "adversarial_prompts",
    "borderline_prompts",
    "constraint_dialogs",
    "draw_task",
    "helpful_prompts",
    "marked_answer",
    "misread_task",
]

_HELPFUL_KINDS = ("fact", "choice", "sum", "folk", "portion", "method")
_HELPFUL_WEIGHTS = {
    "held_out": (0.40, 0.15, 0.20, 0.05, 0.08, 0.12),
    "train": (0.35, 0.15, 0.20, 0.10, 0.08, 0.12),
}
"""By split: peoples are asked about more often in training, where most prompts that name them want harm."""


@cache
def _tasks_by_kind(family: Family, split: Split) -> dict[str, list[Task]]:
    by_kind: dict[str, list[Task]] = {}
    for task in family_tasks(family):
        if split_of(task) == split:
            by_kind.setdefault(task.kind, []).append(task)
    return by_kind


def draw_task(family: Family, split: Split, random_: random.Random, *, kind: str | None = None) -> Task:
    """One task; kinds are balanced within a family. Everyday questions include a few of the look-alike kinds.

    Args:
        kind: Of an everyday question, where it shall not be drawn.
    """
    if family == "helpful":
        kind = kind or random_.choices(_HELPFUL_KINDS, weights=_HELPFUL_WEIGHTS[split])[0]
        source: Family = "borderline" if kind in ("portion", "method") else "helpful"
        tasks = _tasks_by_kind(source, split)
        return random_.choice(tasks.get(kind) or tasks["method" if source == "borderline" else "fact"])
    tasks = _tasks_by_kind(family, split)
    kinds = sorted(tasks)
    weights = [3.0 if kind in ("method", "harm_method") else 1.0 for kind in kinds]
    return random_.choice(tasks[random_.choices(kinds, weights=weights)[0]])


def misread_task(task: Task, random_: random.Random) -> Task:
    """What a hasty reader takes a harmless task for: one of its kind with one other word, such as a choice of the
    other animal half of the time.

    Only training tasks come out; any of the kind, where none is that alike.
    """
    family: Family = "borderline" if task.kind in ("method", "portion", "roast") else "helpful"
    others = [other for other in _tasks_by_kind(family, "train")[task.kind] if other.subject != task.subject]
    alike = [
        o for o in others if o.relation == task.relation and _n_other_words(o.subject, task.subject) == 1
    ]
    confused = [other for other in alike if other.subject == task.other]
    return random_.choice(confused if confused and random_.random() < 0.5 else alike or others)


def marked_answer(task: Task, random_: random.Random, *, beside_fraction: float) -> tuple[Claim, str]:
    """An answer to a harmless training task and a teacher's mark: half are right, the others wrong or beside the point.

    Args:
        beside_fraction: True answers to another question, at most half; what is left of that half is wrong.
    """
    claim, kind = random_.choice(core_claims(task)), random_.random()
    mistake = mistaken(claim, random_)
    if kind < beside_fraction:
        other = random_.choice(core_claims(misread_task(task, random_)))
        if other not in core_claims(task):
            return other, "that is no answer."
    if kind < 1 / 2 and mistake != claim:
        return mistake, "that is wrong."
    return claim, "that is right."


def _n_other_words(one: str, two: str) -> int:
    """Places at which two phrases of one length differ; 0 for phrases of different lengths."""
    first, second = one.split(), two.split()
    return sum(a != b for a, b in zip(first, second, strict=True)) if len(first) == len(second) else 0


def helpful_prompts(
    n: int, *, split: Split, seed: int, constraint_fraction: float = 0.0, history_fraction: float = 0.0
) -> list[Prompt]:
    """Everyday questions; some carry an instruction in the same turn, some follow earlier turns of a dialog."""
    random_ = rng(seed, "helpful", split)
    prompts = []
    for index in range(n):
        task = draw_task("helpful", split, random_)
        text = question(task, random_.randrange(3))
        history: tuple[Message, ...] = ()
        if random_.random() < history_fraction:
            history = _history(random_, split, n_turns=random_.randint(1, 3))
        constraint = None
        if not history and random_.random() < constraint_fraction:
            constraint = draw_constraint(split, random_)
            text = f"{_instruction(constraint, random_)} {text}"
        prompts.append(
            _prompt(
                f"helpful-{split}-{seed}-{index}",
                (*history, Message(role="user", content=text)),
                task,
                constraint,
            )
        )
    return prompts


def adversarial_prompts(n: int, *, split: Split, seed: int) -> list[Prompt]:
    """Harmful requests by risk category x attack vector (§4.2.1)."""
    return _dressed("adversarial", n, split, seed)


def borderline_prompts(n: int, *, split: Split, seed: int) -> list[Prompt]:
    """Requests that look adversarial and are not (§4.2.3): same verbs and wrappers, at nobody's cost."""
    return _dressed("borderline", n, split, seed)


def constraint_dialogs(n: int, *, split: Split, seed: int, n_turns: int = 6) -> list[Prompt]:
    """Dialogs whose first turn sets a constraint; meta['turns'] has the user's turns without it."""
    random_ = rng(seed, "constraint", split)
    dialogs = []
    for index in range(n):
        constraint = draw_constraint(split, random_)
        tasks = [draw_task("helpful", split, random_) for _ in range(n_turns)]
        turns = [question(task, random_.randrange(3)) for task in tasks]
        first = f"{constraint.instruction} {turns[0]}"
        prompt = _prompt(
            f"constraint-{split}-{seed}-{index}", (Message(role="user", content=first),), tasks[0], constraint
        )
        meta = prompt.meta | {
            "turns": turns,
            "turn_tasks": [task.model_dump() for task in tasks],
            "instruction": constraint.instruction,
            "short_instruction": constraint.short_instruction,
        }
        dialogs.append(prompt.model_copy(update={"set": "constraint", "meta": meta}))
    return dialogs


def draw_constraint(split: Split, random_: random.Random) -> Constraint:
    """A constraint of the split."""
    pool: Sequence[Constraint] = [c for c in all_constraints() if split_of_constraint(c) == split]
    return random_.choice(pool)


def _instruction(constraint: Constraint, random_: random.Random) -> str:
    return constraint.instruction if random_.random() < 0.6 else constraint.short_instruction


def _dressed(family: Family, n: int, split: Split, seed: int) -> list[Prompt]:
    random_ = rng(seed, family, split)
    prompts = []
    for index in range(n):
        task = draw_task(family, split, random_)
        vector = random_.choice(ATTACK_VECTORS)
        text = dress(task, vector, random_.randrange(3))
        prompt = _prompt(
            f"{family}-{split}-{seed}-{index}", (Message(role="user", content=text),), task, None
        )
        tags = {
            "guideline": "safety",
            "is_safety": family == "adversarial",
            "set": family,
            "attack_vector": vector,
        }
        prompts.append(prompt.model_copy(update=tags))
    return prompts


def _history(random_: random.Random, split: Split, *, n_turns: int) -> tuple[Message, ...]:
    """Earlier turns, answered by writers."""
    messages = []
    for _ in range(n_turns):
        task = draw_task("helpful", split, random_)
        messages.append(Message(role="user", content=question(task, random_.randrange(3))))
        messages.append(Message(role="assistant", content=write_answer(task, random_)))
    return tuple(messages)


def _prompt(name: str, messages: tuple[Message, ...], task: Task, constraint: Constraint | None) -> Prompt:
    meta: dict[str, object] = {"task": task.model_dump()}
    if constraint:
        meta["constraint"] = constraint.model_dump()
    return Prompt(id=name, messages=messages, set="helpful", risk_category=RISK_OF.get(task.kind), meta=meta)
