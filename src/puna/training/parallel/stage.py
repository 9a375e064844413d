"""A stage on many processes: one of them owns the folder, the others follow its lead."""

import functools
from pathlib import Path
from typing import Any

from puna.core.artifacts import Manifest, StageContext
from puna.core.config import Settings
from puna.core.machine import Machine
from puna.core.progress import Reporter, quiet
from puna.core.stage import Metrics, Stage
from puna.training.parallel.ranks import Ranks

__all__ = ["run_together"]


def run_together(
    stage: Stage[Any],
    config: Settings,
    *,
    ranks: Ranks,
    out: Path,
    seed: int,
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    **given: Any,
) -> Manifest | None:
    """Run a stage that takes `ranks`; every process makes this call.

    The writer alone goes through the artifact mechanism: it holds the lock, and may see that there is nothing to do.
    The others call the stage's plain function with the same folders.

    Args:
        given: The stage's other keywords, and labels.
    Returns:
        The manifest on the writer, None elsewhere.
    """
    machine = machine or Machine()
    if ranks.size == 1:
        return stage(config, out=out, seed=seed, machine=machine, reporter=reporter, ranks=ranks, **given)
    if ranks.is_writer:
        return _lead(
            stage, config, out=out, seed=seed, machine=machine, reporter=reporter, ranks=ranks, **given
        )
    order = ranks.gather(None)[0]
    if order is not None:
        folder, state, seed = order
        context = StageContext(
            folder=Path(folder), state=Path(state), seed=seed, reporter=quiet(), machine=machine
        )
        keywords = {name: value for name, value in given.items() if name != "labels"}
        stage.build(config, context, ranks=ranks, **keywords)
    return None


def _lead(stage: Stage[Any], config: Settings, *, ranks: Ranks, **given: Any) -> Manifest:
    """The writer's part: tell the others where to write, or that there is nothing to do."""
    has_told = False

    @functools.wraps(stage.build)
    def build(config: Settings, context: StageContext, **values: Any) -> Metrics:
        nonlocal has_told
        has_told = True
        ranks.gather((str(context.folder), str(context.state), context.seed))
        return stage.build(config, context, **values)

    leading = Stage[Any](build, kind=stage.kind, labels=stage.labels, keeps_state=stage.keeps_state)
    try:
        return leading(config, ranks=ranks, **given)
    finally:
        if not has_told:
            ranks.gather(None)
