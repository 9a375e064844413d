"""The next update's batches are read in a thread while this one is computed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["prefetching"]

Read = Callable[[int], Sequence[Any]]


@contextmanager
def prefetching(read: Read, *, n_steps: int, is_on: bool) -> Iterator[Read]:
    """The same function of the step, whose next value is ready before it is asked for.

    One thread reads, so `read` needs no lock. An error of the reader is raised where its batch is asked for. Batches
    are a function of the step alone: going back to an earlier one only wastes what was read ahead.
    """
    if not is_on:
        yield read
        return
    ahead: dict[int, Future[Sequence[Any]]] = {}
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as thread:

        def batches(step: int) -> Sequence[Any]:
            current = ahead.pop(step, None) or thread.submit(read, step)
            ahead.clear()
            if step + 1 < n_steps:
                ahead[step + 1] = thread.submit(read, step + 1)
            return current.result()

        yield batches
