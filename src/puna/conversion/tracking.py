"""Progress of a writer that reports none: its source counts what it reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from puna.conversion.stream import TensorSource
from puna.core.progress import Reporter, Tracker

__all__ = ["tracked"]


class _Tracked(TensorSource):
    """Another source, which counts the megabytes of each tensor when it is read for the first time."""

    def __init__(self, source: TensorSource, tracker: Tracker) -> None:
        self.path, self.config, self.tensors = source.path, source.config, source.tensors
        self.tokenizer, self.generation = source.tokenizer, source.generation
        self._source = source
        self._tracker = tracker
        self._read: set[str] = set()

    def read(self, name: str) -> Tensor:
        tensor = self._source.read(name)
        self._read.add(name)
        done = sum(self.tensors[name].n_bytes for name in self._read) // 10**6
        self._tracker.advance(done - self._tracker.completed)
        return tensor

    def close(self) -> None:
        self._source.close()


@contextmanager
def tracked(source: TensorSource, reporter: Reporter) -> Iterator[TensorSource]:
    """The same source, followed by the reporter while the body runs."""
    total = sum(info.n_bytes for info in source.tensors.values()) // 10**6
    with reporter.track("writing", total, "MB") as tracker:
        yield _Tracked(source, tracker)
