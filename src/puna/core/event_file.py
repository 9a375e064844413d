"""TensorBoard's event file, written in the calling thread: a full disk is an error here, not a lost thread.

Scalars only. The records are TensorBoard's own protocol buffers in its own framing.
"""

import time
from pathlib import Path

__all__ = ["EventFile"]


class EventFile:
    """A new event file in a folder; `tensorboard --logdir` shows it."""

    def __init__(self, folder: Path) -> None:
        """Create the file, replacing one of the same name."""
        # Loading protocol buffers takes longer than the rest of core together, and few commands need them.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / "events.out.tfevents.puna").open("wb")
        self._records = RecordWriter(self._stream)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Append one point of one curve."""
        scalar = self._summary.Value(tag=tag, simple_value=value)
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=[scalar])))

    def close(self) -> None:
        """Flush and close."""
        self._stream.close()

    def _write(self, event: object) -> None:
        self._records.write(event.SerializeToString())  # type: ignore[attr-defined]
        self._stream.flush()
