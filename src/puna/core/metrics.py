"""Metrics of a run: one JSON object a line, and the same numbers for TensorBoard."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from puna.core.errors import DataError
from puna.core.event_file import EventFile
from puna.core.storage import storage_errors, write_atomically
from puna.core.trackers import MetricsSink

__all__ = ["MetricsLog", "read_metrics"]

Value = float | int | str | None


class MetricsLog:
    """Append-only `metrics.jsonl` in a folder, and a `tensorboard` folder beside it that mirrors it."""

    def __init__(self, folder: Path, *, tensorboard: bool = True) -> None:
        """Open, or continue, the log; a line cut short by a crash is dropped."""
        self.path = folder / "metrics.jsonl"
        self._has_tensorboard = tensorboard
        self._events: EventFile | None = None
        self._sinks: list[MetricsSink] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _drop_torn_line(self.path)
        self._stream = self.path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, **values: Value) -> None:
        """Record values of one step; numbers that are not finite become null, as JSON has none."""
        finite = {name: _finite(value) for name, value in values.items()}
        row = {"step": step, "split": split, **finite}
        with storage_errors(self.path):
            self._stream.write(json.dumps(row, allow_nan=False) + "\n")
            self._stream.flush()
            if self._events is not None:
                self._mirror([row])
            elif self._has_tensorboard:
                self._mirror(read_metrics(self.path))
        if self._sinks:
            numbers = {f"{split}/{name}": value for name, value in finite.items() if _is_number(value)}
            for sink in self._sinks:
                sink.log(step, numbers)

    def attach(self, sinks: Iterable[MetricsSink]) -> None:
        """Send every later row to these as well; closing the log closes them."""
        self._sinks.extend(sinks)

    def truncate_after(self, step: int) -> None:
        """Forget every step above this one, so that a run resumed there records none twice."""
        with storage_errors(self.path):
            kept = [row for row in read_metrics(self.path) if row["step"] <= step]
            self._stream.close()
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
            self._stream = self.path.open("a", encoding="utf-8")
            if self._has_tensorboard:
                self._close_events()
                self._mirror(kept)

    def close(self) -> None:
        """Flush everything to the disk; closing twice does no harm."""
        with storage_errors(self.path):
            try:
                if not self._stream.closed:
                    with self._stream:
                        self._stream.flush()
                        os.fsync(self._stream.fileno())
            finally:
                self._close_events()
        while self._sinks:
            self._sinks.pop().close()

    def _mirror(self, rows: list[dict[str, Any]]) -> None:
        """Add rows to the event file, which is begun anew with the log's first rows in this process."""
        if self._events is None:
            self._events = EventFile(self.path.parent / "tensorboard")
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "split") and _is_number(value):
                    self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file in order; a last line without its newline is a torn write and left out.

    Raises:
        DataError: the file is absent, or an earlier line is not a JSON object with step and split.
    """
    if not path.is_file():
        raise DataError(where=str(path), expected="a metrics file", got="no such file", fix="Check the path.")
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_parse_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _parse_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or "split" not in row:
        raise DataError(
            where=where,
            expected="a JSON object with step and split",
            got=repr(line[:80]),
            fix="Restore the file, or remove this line.",
        )
    return row


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float)


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_torn_line(path: Path) -> None:
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
