"""A model's own Jinja chat template, rendered in a limited process and sandbox."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.core.errors import ProtocolError

__all__ = ["ChatTemplate"]

WORKER = Path(__file__).with_name("template_worker.py")
KEPT_VARIABLES = ("PATH", "PYTHONPATH", "TZ", "SYSTEMROOT")
"""What the process needs of the environment; nothing else of it is passed on."""
PROFILE_SIGNAL = getattr(signal, "SIGPROF", 0)
"""Ends the process when its time is over."""


class ChatTemplate:
    """A template's source, and the process that renders it; the process starts at the first use.

    Safe to use from several threads: one request at a time. After a fork the child starts a process of its own.
    """

    def __init__(self, source: str, *, name: str, variables: Mapping[str, Any]) -> None:
        """Take the source; the name is for error messages, the variables are there at every rendering."""
        self.source = source
        self._name = name
        self._variables = dict(variables)
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._ending: Callable[[], object] = _nothing
        self._lock = threading.Lock()

    def render(self, dialogs: Sequence[tuple[Sequence[Mapping[str, str]], bool]]) -> list[str]:
        """The text of each (messages, whether the assistant comes next).

        Raises:
            ProtocolError: the template is broken, refuses a dialog, or needs too much time, memory or output.
        """
        jobs = [
            self._variables | {"messages": list(messages), "add_generation_prompt": comes_next}
            for messages, comes_next in dialogs
        ]
        with self._lock:
            answer = self._ask(json.dumps({"source": self.source, "jobs": jobs}))
        if "error" in answer:
            raise self.error("a dialog that it can render", answer["error"])
        return answer["texts"]

    def error(self, expected: str, got: str) -> ProtocolError:
        """An error about this template."""
        fix = "Change the dialog to what the template takes, or the template."
        return ProtocolError(where=f"chat template of {self._name}", expected=expected, got=got, fix=fix)

    def _ask(self, request: str) -> dict[str, Any]:
        if self._process is None or self._owner != os.getpid():
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except (
            BaseException
        ):  # such as Ctrl-C: an answer may still come, which the next request must not read
            self._stop()
            raise
        if not line:
            return {"error": self._stop()}
        return json.loads(line)

    def _start(self) -> None:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            encoding="ascii",
        )
        self._owner = os.getpid()
        self._ending = weakref.finalize(self, _end, self._process, self._owner)

    def _stop(self) -> str:
        """End the process and say how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "a process that is not there"
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            code = 0
        self._ending()
        return (
            "one that runs too long" if code == -PROFILE_SIGNAL else f"a renderer that ended with code {code}"
        )


def _end(process: "subprocess.Popen[str]", owner: int) -> None:
    if owner != os.getpid():  # a fork holds its parent's process, which is not its to end
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _nothing() -> None:
    """What ends a process that never started."""
