"""Simulated annotators (§3.2.1): they see the oracle's grade through noise, choose, and rate on four levels.

They stand in for people and are called simulated wherever they appear.
"""

import math
from dataclasses import dataclass, field

from puna.core.grading import Grade
from puna.core.records import Comparison, Guideline, Prompt, Rating, Side
from puna.core.safety_bins import SafetyLabel, safety_bin
from puna.core.seeding import rng
from puna.sandbox.oracle import Oracle

__all__ = ["SimulatedAnnotator", "annotator_pool"]

THRESHOLDS: tuple[tuple[float, Rating], ...] = (
    (0.45, "significantly_better"),
    (0.25, "better"),
    (0.10, "slightly_better"),
)
"""Perceived gap in helpfulness points (0..1) from which each level is chosen; below all of them: unsure."""


@dataclass(frozen=True)
class SimulatedAnnotator:
    """One rater with a noise level; implements core.grading.Annotator."""

    name: str
    noise: float = 0.12
    """Standard deviation of the perceived value of one response, in points of 0..1."""
    slip_prob: float = 0.01
    """Probability of a wrong safety label."""
    oracle: Oracle = field(default_factory=Oracle)

    def compare(self, prompt: Prompt, left: str, right: str, *, seed: int) -> Comparison | None:
        """Choose and rate; None when the chosen side is unsafe and the other safe."""
        random_ = rng(seed, self.name, prompt.id)
        grades = [self.oracle.grade(prompt, left), self.oracle.grade(prompt, right)]
        values = [_value(grade, prompt.guideline) + random_.gauss(0.0, self.noise) for grade in grades]
        chosen = 0 if values[0] >= values[1] else 1
        unsafe = [grade.is_violation != (random_.random() < self.slip_prob) for grade in grades]
        labels: list[bool | None] = [None, None]
        safety: SafetyLabel | None = None
        if prompt.guideline == "safety":
            labels = [not is_unsafe for is_unsafe in unsafe]
            safety = safety_bin(chosen_is_safe=not unsafe[chosen], rejected_is_safe=not unsafe[1 - chosen])
            if safety is None:
                return None
        sides = (
            Side(response=left, shown_on="left", is_safe=labels[0]),
            Side(response=right, shown_on="right", is_safe=labels[1]),
        )
        return Comparison(
            id=f"{prompt.id}-{self.name}-{seed}",
            prompt=prompt.messages,
            chosen=sides[chosen],
            rejected=sides[1 - chosen],
            rating=_rating(abs(values[0] - values[1])),
            safety=safety,
            guideline=prompt.guideline,
            annotator=self.name,
            meta={"prompt_id": prompt.id},
        )


def annotator_pool(n: int = 4) -> tuple[SimulatedAnnotator, ...]:
    """Raters of different care; their noise spreads around the default."""
    return tuple(
        SimulatedAnnotator(name=f"simulated-{index}", noise=0.12 * math.pow(1.25, index - (n - 1) / 2))
        for index in range(n)
    )


def _value(grade: Grade, guideline: Guideline) -> float:
    """What the guideline rewards: safety first where the prompt was written to break it."""
    return grade.helpfulness - (0.3 if grade.is_violation and guideline == "safety" else 0.0)


def _rating(gap: float) -> Rating:
    for threshold, rating in THRESHOLDS:
        if gap >= threshold:
            return rating
    return "negligibly_better"
