"""Steps of a run: a declared stage with its settings, inputs and output folder; the paths say what needs what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from puna.core.config import Settings
from puna.core.machine import Machine
from puna.core.stage import Stage

__all__ = ["Step", "groups", "needed_for", "needs"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One artifact of a run, not yet made."""

    box: str
    """The box of Figure 4 that it belongs to: what `--until` names."""
    out: Path
    stage: Stage[Any]
    config: Settings
    inputs: Mapping[str, Any]
    """The stage's keywords: paths, and its choices."""
    seed: int
    labels: Mapping[str, str] = field(default_factory=dict)

    def job(self, machine: Machine) -> "partial[Any]":
        """The call that makes it, for this process or another; it takes one more keyword, `reporter`."""
        return partial(
            self.stage,
            self.config,
            out=self.out,
            seed=self.seed,
            labels=self.labels,
            machine=machine,
            **self.inputs,
        )

    def reads(self) -> list[Path]:
        """Every path among its keywords."""
        return list(_paths(self.inputs))


def needs(step: Step, other: Step) -> bool:
    """Whether a step reads what another one makes: its folder, something inside it, or a folder around it."""
    return step is not other and any(
        path == other.out or other.out in path.parents or path in other.out.parents for path in step.reads()
    )


def needed_for(plan: Sequence[Step], box: str) -> list[Step]:
    """The steps of a box, and all that they need, in the plan's order."""
    wanted = {id(step) for step in plan if step.box == box}
    for step in reversed(plan):
        if id(step) in wanted:
            wanted |= {id(other) for other in plan if needs(step, other)}
    return [step for step in plan if id(step) in wanted]


def groups(plan: Sequence[Step]) -> list[list[Step]]:
    """What runs side by side: neighbours in the plan that need nothing of one another.

    A step of the same stage as the one it needs stays in the group and waits its turn there, as evaluations wait for
    the evaluation that they are compared with. The cut depends on the plan alone, and with it the threads that a step
    gets and the last bits of what it computes.
    """
    made: list[list[Step]] = []
    for step in plan:
        blockers = [other for other in made[-1] if needs(step, other)] if made else []
        if (
            made
            and all(other.stage is step.stage for other in blockers)
            and not _is_chain(made[-1], blockers)
        ):
            made[-1].append(step)
        else:
            made.append([step])
    return made


def _is_chain(group: Sequence[Step], blockers: Sequence[Step]) -> bool:
    """Whether joining would only queue behind the whole group: nothing would run beside it."""
    return len(blockers) == len(group)


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _paths(member)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for member in value:
            yield from _paths(member)
