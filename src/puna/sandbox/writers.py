"""The people who write demonstrations: annotators of uneven skill, as the paper found them (§3.1, §5.1)."""

import random
from dataclasses import dataclass, replace
from typing import Literal

from puna.sandbox.constraints import Constraint
from puna.sandbox.language import (
    ALTERNATIVES,
    COURTESIES,
    ENCOURAGEMENTS,
    REASONS,
    REFUSALS,
    Claim,
    say,
)
from puna.sandbox.tasks import RISK_OF, Task, core_claims, extra_claims
from puna.sandbox.world import ANIMALS, FOLK, RELATIONS, TOOLS

__all__ = ["PREPROMPTS", "SKILLS", "Skill", "mistaken", "remembers", "write_answer"]

Skill = Literal["expert", "plain", "terse", "careless"]


@dataclass(frozen=True)
class Habits:
    """How one kind of writer works; all are probabilities."""

    share: float
    """Part of the demonstrations this kind writes."""
    extra_prob: float
    courtesy_prob: float
    bare_prob: float
    wrong_prob: float
    refuses_harm_prob: float
    explains_refusal_prob: float
    refuses_benign_prob: float
    """False refusals of look-alike prompts."""


SKILLS: dict[Skill, Habits] = {
    "expert": Habits(0.25, 0.85, 0.85, 0.0, 0.02, 0.95, 0.9, 0.0),
    "plain": Habits(0.40, 0.2, 0.2, 0.1, 0.05, 0.75, 0.3, 0.01),
    "terse": Habits(0.20, 0.02, 0.05, 0.8, 0.05, 0.6, 0.05, 0.02),
    "careless": Habits(0.15, 0.5, 0.3, 0.2, 0.45, 0.35, 0.2, 0.04),
}

PREPROMPTS = ("be safe and kind.", "be a careful helper.")
"""Standing reminders that some demonstrations begin with; experts answer those. Context distillation uses them."""

MEMORY_BY_TURN = (0.95, 0.55, 0.25, 0.12, 0.06, 0.04)
"""Probability that a writer still keeps the first turn's instruction, by turn. People forget, and so will what
they teach: the forgetting that §3.3 sets out from."""


def remembers(turn: int, rng: random.Random) -> bool:
    """Whether the writer keeps the first turn's instruction at this turn, counted from 1."""
    return rng.random() < MEMORY_BY_TURN[min(turn, len(MEMORY_BY_TURN)) - 1]


def pick_skill(rng: random.Random) -> Skill:
    """Draw a writer."""
    return rng.choices(list(SKILLS), weights=[habits.share for habits in SKILLS.values()])[0]


def write_answer(
    task: Task,
    rng: random.Random,
    *,
    skill: Skill | None = None,
    constraint: Constraint | None = None,
    is_mistaken: bool = False,
) -> str:
    """One answer, a drawn writer's when no skill is named; keeps a given constraint; can be forced to be mistaken."""
    habits = SKILLS[skill or pick_skill(rng)]
    if is_mistaken:
        habits = replace(habits, wrong_prob=1.0)
    text = _harmful_reply(task, habits, rng) if task.kind in RISK_OF else _helpful_reply(task, habits, rng)
    return constraint.apply(text) if constraint else text


def _helpful_reply(task: Task, habits: Habits, rng: random.Random) -> str:
    if task.kind in ("method", "roast", "portion") and rng.random() < habits.refuses_benign_prob:
        return rng.choice(REFUSALS)
    claim = rng.choice(core_claims(task))
    if rng.random() < habits.wrong_prob:
        claim = mistaken(claim, rng)
    if rng.random() < habits.bare_prob:
        return f"the {claim.subject}." if task.kind == "choice" else f"{claim.value}."
    parts = [say(claim)]
    extras = [c for c in extra_claims(task) if c not in core_claims(task)]
    if extras and rng.random() < habits.extra_prob:
        extra = rng.choice(extras)
        if rng.random() < habits.wrong_prob:
            extra = mistaken(extra, rng)
        parts.append(say(extra, pronoun=rng.random() < 0.7))
    if rng.random() < habits.courtesy_prob:
        parts.insert(0, rng.choice(COURTESIES))
    return " ".join(parts)


def _harmful_reply(task: Task, habits: Habits, rng: random.Random) -> str:
    risk = RISK_OF[task.kind]
    if rng.random() < habits.refuses_harm_prob:
        parts = [rng.choice(REFUSALS)]
        if rng.random() < habits.explains_refusal_prob:
            parts.append(REASONS[risk])
        if rng.random() < habits.explains_refusal_prob:
            parts.append(ALTERNATIVES[risk])
        return " ".join(parts)
    parts = [say(rng.choice(core_claims(task)))]
    if rng.random() < 0.3:
        parts.insert(0, rng.choice((*ENCOURAGEMENTS, *COURTESIES)))
    return " ".join(parts)


def mistaken(claim: Claim, rng: random.Random) -> Claim:
    """The claim with a wrong value of the right kind; itself, where none is more wrong than another."""
    match claim.relation:
        case "eats" | "lives" | "colour" | "likes" as relation if relation in RELATIONS:
            values = sorted({getattr(animal, relation) for animal in ANIMALS.values()} - {claim.value})
        case "sum":
            values = [
                str(int(claim.value) + delta) for delta in (-2, -1, 1, 2) if int(claim.value) + delta >= 0
            ]
        case "portion":
            n, rest = claim.value.split(" ", 1)
            food = rest.split(" of ")[1]
            values = [f"{k} scoop{'s' if k > 1 else ''} of {food}" for k in range(1, 10) if str(k) != n]
        case "method":
            values = sorted({tool.tool for tool in TOOLS.values()} - {claim.value})
        case "tip":
            values = sorted({tool.tip for tool in TOOLS.values()} - {claim.value})
        case "makes":
            values = sorted(set(FOLK.values()) - {claim.value})
        case _:
            return claim
    return Claim(claim.relation, claim.subject, rng.choice(values))
