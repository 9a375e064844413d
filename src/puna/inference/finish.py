"""How a response ended, and the one definition of "finished"."""

from puna.core.records import FinishReason

__all__ = ["is_finished"]


def is_finished(finish_reason: FinishReason) -> bool:
    """Whether a response ended by itself.

    It did when it sampled an end-of-sequence token ("eos") or said a stop string ("stop"). It was cut by a limit of
    tokens ("length") or by its caller ("cancelled").
    """
    return finish_reason in ("eos", "stop")
