"""Standing instructions for Ghost Attention (§3.3): how to address the user, how to end, or both at once."""

import itertools
from functools import cache
from typing import Literal

from puna.core.records import Record
from puna.core.seeding import derive_seed
from puna.sandbox.world import WORLD_VERSION

__all__ = ["ENDINGS", "TITLES", "Constraint", "all_constraints", "split_of_constraint", "train_constraints"]

TITLES = ("captain", "friend", "chef", "doctor", "neighbour", "sailor", "master", "cousin")
ENDINGS = ("moo", "quack", "woof", "cheers", "amen", "hooray", "goodbye", "peace")


class Constraint(Record):
    """What every answer must do until the dialog ends; an empty part asks nothing."""

    title: str = ""
    ending: str = ""

    @property
    def instruction(self) -> str:
        """The full sentences."""
        parts = [f"always call me {self.title}."] if self.title else []
        if self.ending:
            parts.append(f"always end with {self.ending}.")
        return " ".join(parts)

    @property
    def short_instruction(self) -> str:
        """The shortened form of half of the paper's training data, like `Figure: Napoleon`."""
        parts = [f"title: {self.title}."] if self.title else []
        if self.ending:
            parts.append(f"ending: {self.ending}.")
        return " ".join(parts)

    def apply(self, answer: str) -> str:
        """The answer with the constraint kept."""
        if self.title:
            answer = f"{self.title}, {answer}"
        return f"{answer} {self.ending}." if self.ending else answer

    def strip(self, response: str) -> tuple[bool, str]:
        """Whether the response keeps the constraint, and the response without its marks."""
        text = " ".join(response.split())
        kept = True
        if self.title:
            kept &= text.startswith(f"{self.title}, ")
            text = text.removeprefix(f"{self.title}, ")
        if self.ending:
            kept &= text == f"{self.ending}." or text.endswith(f" {self.ending}.")
            text = text.removesuffix(f"{self.ending}.").rstrip()
        return kept, text


def all_constraints() -> tuple[Constraint, ...]:
    """Each title, each ending, and each combination."""
    single = [Constraint(title=t) for t in TITLES] + [Constraint(ending=e) for e in ENDINGS]
    pairs = [Constraint(title=t, ending=e) for t, e in itertools.product(TITLES, ENDINGS)]
    return tuple(single + pairs)


def split_of_constraint(constraint: Constraint) -> Literal["train", "held_out"]:
    """Held-out constraints are combinations never trained on; their parts are all trained on."""
    if not (constraint.title and constraint.ending):
        return "train"
    bucket = derive_seed(WORLD_VERSION, "constraint", constraint.title, constraint.ending) % 100
    return "held_out" if bucket < 30 else "train"


@cache
def train_constraints() -> tuple[Constraint, ...]:
    """Those that may be trained on."""
    return tuple(c for c in all_constraints() if split_of_constraint(c) == "train")
