"""The sequences that run: one row of every array a slot, so that a step touches them all at once."""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.inference.sampling import NOISE_TOKENS, noise_chunk
from puna.inference.sequence import Sequence
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

    def enter(self, slot: int, sequence: Sequence, *, n_computed: int, n_shared: int) -> None:
        """A waiting sequence takes a free slot; its noise goes on after the tokens it has drawn."""
        tokens, n_prompt = sequence.tokens, sequence.n_prompt
        self.tokens[slot, : len(tokens)] = tokens
        self.logprobs[slot, n_prompt : len(tokens)] = sequence.logprobs
        self.tables[slot, : len(sequence.blocks)] = sequence.blocks
        self.n_blocks[slot], self.n_prompt[slot] = len(sequence.blocks), n_prompt
        self.n_tokens[slot], self.n_computed[slot] = len(tokens), n_computed
        self.n_shared[slot], self.n_limit[slot] = n_shared, sequence.n_limit
        self.noise[slot] = noise_chunk(sequence.request.seed, len(tokens) - n_prompt)
        sequence.slot = slot

    def leave(self, sequence: Sequence) -> int:
        """A running sequence takes its tokens with it; returns the slot, which is free."""
        token_ids, sequence.logprobs = self.response(sequence)
        sequence.tokens = [*sequence.request.prompt, *token_ids]
        slot, sequence.slot = sequence.slot, -1
        return slot

    def response(self, sequence: Sequence) -> tuple[list[int], list[float]]:
        """Sampled tokens and their log-probs, in nats, of a sequence that runs or waits."""
        if not sequence.is_running:
            return sequence.tokens[sequence.n_prompt :], list(sequence.logprobs)
        sampled = slice(sequence.n_prompt, int(self.n_tokens[sequence.slot]))
        return self.tokens[sequence.slot, sampled].tolist(), self.logprobs[sequence.slot, sampled].tolist()

    def last_logprob(self, sequence: Sequence) -> float:
        """Of a running sequence's newest token, in nats."""
        return float(self.logprobs[sequence.slot, self.n_tokens[sequence.slot] - 1])

    def n_drawn(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens sampled so far in each of these slots."""
        return self.n_tokens[at] - self.n_prompt[at]

    def next_noise(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """The uniform number of the next token in each of these slots."""
        return self.noise[at, self.n_drawn(at) % NOISE_TOKENS]

    def append(self, drawn: Many[Sequence], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """One new token for each of these running sequences."""
        at = np.array([sequence.slot for sequence in drawn])
        place = self.n_tokens[at]
        self.tokens[at, place], self.logprobs[at, place] = tokens, logprobs
        self.n_tokens[at] += 1
        n_drawn = self.n_drawn(at)
        for index in np.flatnonzero(n_drawn % NOISE_TOKENS == 0).tolist():
            self.noise[at[index]] = noise_chunk(drawn[index].request.seed, int(n_drawn[index]))
