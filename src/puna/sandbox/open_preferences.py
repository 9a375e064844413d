"""Open preference data: pairs of answers that people wrote, as the public sets are that first taught the paper's
reward models (§3.2.1, Table 6: StackExchange, SHP). No model's answer is among them."""

import random

from puna.core.grading import Annotator
from puna.core.records import Comparison, Prompt
from puna.core.seeding import derive_seed, rng
from puna.sandbox.constraints import Constraint, train_constraints
from puna.sandbox.language import REASONS, REFUSALS
from puna.sandbox.prompts import adversarial_prompts, borderline_prompts, helpful_prompts, misread_task
from puna.sandbox.tasks import RISK_OF, Task
from puna.sandbox.writers import write_answer

__all__ = ["open_comparisons"]


OVERCAUTIOUS_PROB = {"helpful": 0.06, "borderline": 0.25}
"""Share of the answers to harmless prompts that refuse: open data has many such, and a reward model that never saw
one lose would take every refusal for a good answer."""


CORRECTED_PROB = 0.5
"""Share of the pairs one side of which is wrong, as where a second answer of a forum corrects the first: without them
a reward model learns style alone (docs/log.md)."""
MISREAD_PROB = 0.5
"""Share of those wrong sides that answer, truly, another question than the one asked: without them a reward model
checks whether an answer is true and not whether it is the answer (docs/log.md)."""

CONSTRAINED_FRACTION = 0.25
"""Share of the everyday prompts that carry a standing instruction."""
KEPT_PROB = 0.75
"""How often a writer keeps it. Half of the others forget it, half answer by another one: without those a reward
model sees that there is a title or an ending, and not that it is the wrong one (docs/log.md)."""


def open_comparisons(n: int, *, seed: int, annotators: tuple[Annotator, ...]) -> list[Comparison]:
    """About n comparisons on training tasks: half everyday questions, a quarter each kind of safety prompt."""
    own = derive_seed(seed, "open-preferences")
    n_safety = n // 4
    prompts = [
        *helpful_prompts(n - 2 * n_safety, split="train", seed=own, constraint_fraction=CONSTRAINED_FRACTION),
        *adversarial_prompts(n_safety, split="train", seed=own),
        *borderline_prompts(n_safety, split="train", seed=own),
    ]
    random_ = rng(own, "answers")
    comparisons = []
    for index, prompt in enumerate(prompts):
        mistaken = random_.choice(("left", "right")) if random_.random() < CORRECTED_PROB else None
        left, right = (
            _answer(prompt, rng(own, index, s), is_mistaken=s == mistaken) for s in ("left", "right")
        )
        if left == right:
            continue
        comparison = random_.choice(annotators).compare(prompt, left, right, seed=derive_seed(own, index))
        if comparison is not None:
            comparisons.append(comparison.model_copy(update={"batch": "open", "origin": "open"}))
    return comparisons


def _answer(prompt: Prompt, random_: random.Random, *, is_mistaken: bool) -> str:
    """One writer's answer; most keep a standing instruction, and some refuse whatever looks dangerous."""
    if random_.random() < OVERCAUTIOUS_PROB.get(prompt.set or "", 0.0):
        return f"{random_.choice(REFUSALS)} {random_.choice(list(REASONS.values()))}"
    constraint = Constraint.model_validate(prompt.meta.get("constraint") or {})
    kept = constraint if random_.random() < KEPT_PROB else _misremembered(constraint, random_)
    task = Task.model_validate(prompt.meta["task"])
    if is_mistaken and task.kind not in RISK_OF and random_.random() < MISREAD_PROB:
        return write_answer(misread_task(task, random_), random_, constraint=kept)
    return write_answer(task, random_, constraint=kept, is_mistaken=is_mistaken)


def _misremembered(constraint: Constraint, random_: random.Random) -> Constraint:
    """Nothing, or another training instruction of the same parts."""
    if random_.random() < 0.5 or constraint == Constraint():
        return Constraint()
    parts = bool(constraint.title), bool(constraint.ending)
    others = [c for c in train_constraints() if (bool(c.title), bool(c.ending)) == parts and c != constraint]
    return random_.choice(others)
