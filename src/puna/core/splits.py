"""What is held out: decided by content alone, so that equal content is never on both sides."""

from puna.core.seeding import derive_seed

__all__ = ["HELD_OUT_SEED", "is_held_out"]

HELD_OUT_SEED = 0
"""The same in every run and round, so that rounds and runs can be pooled."""


def is_held_out(key: str, fraction: float, *, seed: int = HELD_OUT_SEED, stream: str = "held_out") -> bool:
    """Whether everything with this key, such as a prompt's text, is held out; depends on nothing else.

    Args:
        stream: Which independent draw this is.
    """
    return derive_seed(seed, stream, key) < fraction * 2**63
