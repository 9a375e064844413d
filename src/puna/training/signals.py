"""Signals while training: the current update ends and the state is saved before the processors are given back.

SIGTERM and SIGUSR1 come from schedulers, SIGINT from Ctrl-C; a second Ctrl-C stops at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from puna.core.errors import Preempted

__all__ = ["StopRequest", "preemptible", "stop_requests"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send ahead of SIGKILL: Slurm by --signal, Kubernetes and torchrun's own agent SIGTERM."""


class StopRequest:
    """Whether a signal came; the loop asks between two updates."""

    name: str | None = None
    """Of the signal, such as SIGTERM."""

    @property
    def is_made(self) -> bool:
        """A signal came."""
        return self.name is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the signals while the body runs; nothing changes off the main thread, which alone gets signals."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and request.is_made:
            raise KeyboardInterrupt
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (*SIGNALS, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def preemptible() -> Iterator[None]:
    """Around the loops, which save first: elsewhere a signal ends the command at once, as Ctrl-C does.

    Raises:
        Preempted: wherever the body is; its unfinished stage resumes from what it saved last.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted(signal_name=signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
