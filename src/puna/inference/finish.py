"""When a response counts as finished: the one definition."""

from puna.core.records import FinishReason

__all__ = ["is_finished"]


def is_finished(reason: FinishReason) -> bool:
    """Whether a response ended by itself: by an end token or a stop string, and not by a limit or a cancellation."""
    return reason in ("eos", "stop")
