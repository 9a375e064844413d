"""Runs a plan of steps into a folder: finished steps are skipped, an interrupted one resumes, independent ones run
side by side."""

from collections.abc import Sequence
from pathlib import Path

from puna.core.machine import Machine
from puna.core.progress import Reporter
from puna.recipe.side_by_side import run_side_by_side
from puna.recipe.steps import Step, groups, needs

__all__ = ["boxes", "execute"]


def boxes(plan: Sequence[Step]) -> list[str]:
    """The names that `--until` knows, in the order in which they are complete."""
    return list(dict.fromkeys(step.box for step in reversed(plan)))[::-1]


def execute(
    plan: Sequence[Step], wanted: Sequence[Step], *, run: Path, machine: Machine, reporter: Reporter
) -> None:
    """Make the wanted steps of a plan; what runs side by side is cut by the whole plan, whatever is wanted of it."""
    for group in groups(plan):
        steps = [step for step in group if any(step is other for other in wanted)]
        if len(group) == 1:
            for step in steps:
                step.job(machine)(reporter=reporter)
        elif steps:
            _beside(steps, len(group), run=run, machine=machine, reporter=reporter)


def _beside(
    steps: Sequence[Step], n_planned: int, *, run: Path, machine: Machine, reporter: Reporter
) -> None:
    names = {id(step): step.out.relative_to(run).as_posix() for step in steps}
    run_side_by_side(
        {names[id(step)]: step.job(machine) for step in steps},
        after={
            names[id(step)]: {names[id(other)] for other in steps if needs(step, other)} for step in steps
        },
        n_planned=n_planned,
        reporter=reporter,
    )
