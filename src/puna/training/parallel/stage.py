"""A stage on many processes: one of them owns the folder, the others follow its lead."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from puna.core.artifacts import Manifest, StageContext
from puna.core.progress import quiet
from puna.training.parallel.ranks import Ranks

__all__ = ["Build", "run_together"]

Build = Callable[[StageContext], Mapping[str, Any]]


def run_together(ranks: Ranks, build: Build, stage: Callable[[Build], Manifest]) -> Manifest | None:
    """Run a stage whose build needs every process.

    Args:
        build: Called on every process, with the same folders.
        stage: Calls `run_stage` with the build it is given; the writer alone does, for it holds the lock, and may find
            that there is nothing to do.
    Returns:
        The manifest on the writer, None elsewhere.
    """
    if ranks.size == 1:
        return stage(build)
    if ranks.is_writer:
        return _lead(ranks, build, stage)
    order = ranks.gather(None)[0]
    if order is not None:
        folder, state, seed = order
        context = StageContext(folder=Path(folder), state=Path(state), seed=seed, reporter=quiet())
        build(context)
    return None


def _lead(ranks: Ranks, build: Build, stage: Callable[[Build], Manifest]) -> Manifest:
    has_told = False

    def lead(context: StageContext) -> Mapping[str, Any]:
        nonlocal has_told
        has_told = True
        ranks.gather((str(context.folder), str(context.state), context.seed))
        return build(context)

    try:
        return stage(lead)
    finally:
        if not has_told:
            ranks.gather(None)
