"""Python's garbage collection at chosen updates: left alone, it stops each process at another moment, and all wait."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["COLLECT_EVERY_STEPS", "scheduled_collection"]

COLLECT_EVERY_STEPS = 50
"""Updates between collections, the same on every process. Our choice."""


@contextmanager
def scheduled_collection(every_steps: int) -> Iterator[Callable[[int], None]]:
    """Within it, garbage is collected after every `every_steps` updates; the function it gives is called after each.

    What exists at the start is left out of all collections until the end.
    """

    def collect(n_done: int) -> None:
        if n_done % every_steps == 0:
            gc.collect()

    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
