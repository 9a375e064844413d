"""The sequences that run: one row of every array a slot, so that a step touches them all at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.inference.sampling import NOISE_TOKENS
from puna.model.blockwise_attention import BLOCK_TOKENS, round_up

__all__ = ["SlotTable"]


@dataclass(frozen=True, slots=True)
class SlotTable:
    """State of the running sequences."""

    tokens: NDArray[np.int64]
    """(slot, position): prompt, then what was sampled."""
    logprobs: NDArray[np.float32]
    """(slot, position): of the sampled tokens."""
    tables: NDArray[np.int64]
    """(slot, place): blocks in order."""
    noise: NDArray[np.float64]
    """(slot, token): the uniform numbers of the next tokens."""
    n_blocks: NDArray[np.int64]
    n_prompt: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    """Known tokens."""
    n_computed: NDArray[np.int64]
    """Tokens whose keys and values are in the cache."""
    n_shared: NDArray[np.int64]
    """Tokens in blocks that others read: their keys are never written."""
    n_limit: NDArray[np.int64]
    """Tokens at which the sequence ends by length."""

    @classmethod
    def empty(cls, n_slots: int, max_seq_len: int) -> "SlotTable":
        """All slots free."""
        counts = [np.zeros(n_slots, dtype=np.int64) for _ in range(6)]
        return cls(
            np.zeros((n_slots, max_seq_len + 1), dtype=np.int64),
            np.zeros((n_slots, max_seq_len + 1), dtype=np.float32),
            np.zeros((n_slots, round_up(max_seq_len, BLOCK_TOKENS) // BLOCK_TOKENS), dtype=np.int64),
            np.zeros((n_slots, NOISE_TOKENS)),
            *counts,
        )
