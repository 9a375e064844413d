"""Settings that guard a run and change nothing of what is learned; they may change at a resume."""

from pydantic import Field

from puna.core.config import Settings

__all__ = ["Safeguards"]


class Safeguards(Settings):
    """How many training states are kept, how they are written, and when silence is a stall."""

    keep_last: int = Field(default=2, gt=0)
    """Newest states kept: where the newest is damaged, the one before it is used."""
    permanent_every_steps: int | None = Field(default=None, gt=0)
    """States of these updates are never removed; None keeps the newest only."""
    is_asynchronous: bool = True
    """Write beside the training, from a copy in main memory (pinned for CUDA); False waits for the disk."""
    stall_seconds: float | None = Field(default=1800.0, gt=0)
    """Seconds without an update or a micro-batch after which every process writes down where it stands; None: never."""
