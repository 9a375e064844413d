"""The folders of training states: `step-N` appears whole, by renaming, and older ones go only afterwards."""

import shutil
from pathlib import Path

from puna.core.storage import sync

__all__ = ["keep_permanent", "partial_folder", "prune", "publish", "saved_states", "set_aside", "step_of"]

DAMAGED = "damaged-"


def step_of(folder: Path) -> int:
    """Updates done in the state of this name."""
    return int(folder.name.removeprefix("step-"))


def saved_states(folder: Path) -> list[Path]:
    """Published states, newest first."""
    return sorted(folder.glob("step-*"), key=step_of, reverse=True)


def partial_folder(folder: Path, step: int) -> Path:
    """An empty folder that a state is written into."""
    partial = folder / f".step-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def publish(partial: Path) -> Path:
    """Give a finished state its name; a state of the same update is replaced."""
    final = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
    shutil.rmtree(final, ignore_errors=True)
    sync(partial)
    partial.rename(final)
    sync(final.parent)
    return final


def prune(folder: Path, *, keep_last: int, permanent_every_steps: int | None) -> None:
    """Remove what is neither among the newest nor permanent, and damaged states that a newer one has replaced."""
    for older in saved_states(folder)[keep_last:]:
        if permanent_every_steps is None or step_of(older) % permanent_every_steps:
            shutil.rmtree(older)
    for damaged in folder.glob(f"{DAMAGED}*"):
        shutil.rmtree(damaged)


def set_aside(state: Path) -> None:
    """Take a damaged state out of the count, for someone to look at."""
    aside = state.with_name(f"{DAMAGED}{state.name}")
    shutil.rmtree(aside, ignore_errors=True)
    state.rename(aside)


def keep_permanent(folder: Path, beside: Path, permanent_every_steps: int | None) -> None:
    """Move the states that are to stay out of a training that ends; an earlier run's under that name are replaced."""
    if permanent_every_steps is None:
        return
    permanent = [state for state in saved_states(folder) if step_of(state) % permanent_every_steps == 0]
    if permanent:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    for state in permanent:
        state.rename(beside / state.name)
