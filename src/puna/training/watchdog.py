"""A process that makes no progress says where it stands: every thread's stack, to a file and to standard error.

All processes of a training wait for the slowest, so all of them report; the one whose last word is not a wait for
the others is the one to look at.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

__all__ = ["Watchdog"]


class Watchdog:
    """A thread that wakes up now and then and compares clocks; the training only notes what it begins."""

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        stall_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reports go to `folder/stall-rank-N.txt`."""
        self._path = folder / f"stall-rank-{rank}.txt"
        self._rank, self._stall_seconds, self._clock = rank, stall_seconds, clock
        self._doing, self._since = "starting", clock()
        self._reported: float | None = None
        """Since when the stall lasted that was reported last."""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._stall_seconds is not None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def note(self, doing: str) -> None:
        """Progress: the training begins this now."""
        self._doing, self._since = doing, self._clock()

    def look(self) -> None:
        """Compare clocks; a stall is reported once."""
        since, now = self._since, self._clock()
        if self._stall_seconds is not None and now - since >= self._stall_seconds and since != self._reported:
            self._reported = since
            self._report(now - since)

    def _watch(self) -> None:
        assert self._stall_seconds is not None
        while not self._stopped.wait(min(self._stall_seconds / 4, 10.0)):
            self.look()

    def _report(self, seconds: float) -> None:
        """Once a stall; a full disk leaves standard error."""
        head = f"rank {self._rank} (process {os.getpid()}) has not moved for {seconds:.0f} s: {self._doing}\n"
        text = f"WARNING: {head}"
        try:
            with self._path.open("a+", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                start = file.tell()
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(start)
                text += file.read() + f"(also in {self._path})\n"
        except OSError as error:
            text += f"(no stacks: {error})\n"
        sys.stderr.write(text)
        sys.stderr.flush()
