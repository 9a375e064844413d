"""Python's garbage collection at chosen updates: left alone, it stops each process at another moment, and all wait."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["scheduled_collection"]


@contextmanager
def scheduled_collection(every_steps: int | None) -> Iterator[Callable[[int], None]]:
    """Within it, garbage is collected when the function it gives is told of every so-manieth update.

    What exists at the start is left out of all collections until the end. With None nothing changes.
    """
    if every_steps is None:
        yield lambda n_done: None
        return

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
