"""Who sees which block in a step: pieces of prompts as spans, single tokens as (token, block) pairs."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.model.blockwise_attention import BLOCK_TOKENS, MASKED, round_up
from puna.model.paged_cache import AttentionPlan, Pairs, Span

__all__ = ["Pieces", "pair_up", "plan_attention"]

N_READERS = 8
"""Tokens that read a shared block in one product; more of them repeat the block. Our choice."""

MIN_SPAN_TOKENS = 48
"""Shorter pieces are planned token by token. Our choice, by measurement."""

MAX_SPAN_TOKENS = 128
"""Longer pieces are split, so that their first tokens do not compute scores with keys after them. Our choice."""

FILLED_MULTIPLE = 16
"""Tokens that are planned one by one are filled up to a multiple of this."""

OWN_MULTIPLE, SHARED_MULTIPLE = 32, 8
"""Numbers of blocks are filled up to these: oneDNN compiles and keeps a kernel for every size."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The sequences of a step, a row each: tokens one after the other; the long pieces come last."""

    tables: NDArray[np.int64]
    """(sequence, place): each one's blocks in order."""
    first_positions: NDArray[np.int64]
    n_tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_tokens)

    def owners(self) -> NDArray[np.int64]:
        """Which piece each token is of."""
        return np.repeat(np.arange(len(self)), self.n_tokens)

    def starts(self) -> NDArray[np.int64]:
        """Each piece's first token in the step."""
        return self.n_tokens.cumsum() - self.n_tokens

    def positions(self) -> NDArray[np.int64]:
        """Each token's position in its sequence."""
        owners = self.owners()
        return self.first_positions[owners] + np.arange(len(owners)) - self.starts()[owners]


def plan_attention(
    pieces: Pieces, *, n_rows: int, n_blocks: int, device: torch.device | str = "cpu"
) -> AttentionPlan:
    """The plan of a step of `n_rows`: the pieces' tokens one after the other, then fillers.

    Args:
        n_blocks: Blocks of the pool.
    """
    starts, piece, positions = pieces.starts(), pieces.owners(), pieces.positions()
    slots = np.zeros(n_rows, dtype=np.int64)
    blocks = pieces.tables[piece, positions // BLOCK_TOKENS]
    slots[: len(piece)] = blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS
    n_short = int((pieces.n_tokens < MIN_SPAN_TOKENS).sum())
    spans = [
        span
        for index in range(n_short, len(pieces))
        for span in _spans(
            pieces.tables[index],
            int(pieces.first_positions[index]),
            int(pieces.n_tokens[index]),
            int(starts[index]),
            device,
        )
    ]
    n_single = int(starts[n_short]) if n_short < len(pieces) else len(piece)
    pairs = None
    if n_single:
        tables = pieces.tables[piece[:n_single], : int(positions[:n_single].max()) // BLOCK_TOKENS + 1]
        n_filled = n_rows if not spans else min(round_up(n_single, FILLED_MULTIPLE), n_rows)
        pairs = pair_up(tables, positions[:n_single], n_filled, n_blocks, device)
    return AttentionPlan(torch.from_numpy(slots).to(device), tuple(spans), pairs)


def _spans(
    table: NDArray[np.int64], first_position: int, n_tokens: int, row: int, device: torch.device | str
) -> list[Span]:
    """One long piece, in spans of at most MAX_SPAN_TOKENS."""
    spans = []
    for start in range(0, n_tokens, MAX_SPAN_TOKENS):
        end = min(start + MAX_SPAN_TOKENS, n_tokens)
        queries = first_position + np.arange(start, end)
        n_seen = int(queries[-1]) // BLOCK_TOKENS + 1
        mask = _mask(queries, n_seen)[None, None]
        spans.append(
            Span(
                start=row + start,
                end=row + end,
                blocks=torch.from_numpy(table[:n_seen].copy()).to(device),
                mask=torch.from_numpy(mask).to(device),
            )
        )
    return spans


def _mask(positions: NDArray[np.int64], n_places: int) -> NDArray[np.float32]:
    """What to add to each token's scores: nothing up to its own position."""
    keys = np.arange(n_places * BLOCK_TOKENS)
    return np.where(keys <= positions[:, None], np.float32(0), np.float32(MASKED))


def pair_up(
    tables: NDArray[np.int64],
    positions: NDArray[np.int64],
    n_tokens: int,
    n_pool: int,
    device: torch.device | str,
) -> Pairs:
    """Pairs of tokens and blocks, from each token's own row of blocks.

    Args:
        n_tokens: Tokens with the fillers.
        n_pool: Blocks of the pool.
    """
    n_places = tables.shape[1]
    token, place = (np.arange(n_places) <= positions[:, None] // BLOCK_TOKENS).nonzero()
    block = tables[token, place]
    spot = token * n_places + place
    is_own = np.bincount(block, minlength=n_pool)[block] == 1
    filler_token, filler_place = n_tokens, n_tokens * n_places
    # Blocks with one reader: the first blocks of the pool as they lie, if most of those have one.
    own_block = block[is_own]
    n_own = min(round_up(int(own_block.max()) + 1, OWN_MULTIPLE), n_pool) if len(own_block) else 0
    is_dense = 2 * len(own_block) >= n_own
    if not is_dense:
        n_own = round_up(len(own_block), OWN_MULTIPLE)
    at = own_block if is_dense else np.arange(len(own_block))
    owners, own_places = np.full(n_own, filler_token), np.full(n_own, filler_place)
    owners[at], own_places[at] = token[is_own], spot[is_own]
    own_ids = np.zeros(n_own, dtype=np.int64)
    own_ids[: 0 if is_dense else len(own_block)] = own_block[: 0 if is_dense else len(own_block)]
    # Blocks with many readers: N_READERS of them in one product.
    order = np.argsort(block[~is_own], kind="stable")
    shared_block = block[~is_own][order]
    starts = np.flatnonzero(np.diff(shared_block, prepend=-1))
    sizes = np.diff(starts, append=len(shared_block))
    n_products = -(-sizes // N_READERS)
    rank = np.arange(len(shared_block)) - np.repeat(starts, sizes)
    product = np.repeat(n_products.cumsum() - n_products, sizes) + rank // N_READERS
    n_shared = round_up(int(n_products.sum()), SHARED_MULTIPLE)
    shared_ids = np.zeros(n_shared, dtype=np.int64)
    shared_ids[product] = shared_block
    readers = np.full((n_shared, N_READERS), filler_token)
    shared_places = np.full((n_shared, N_READERS), filler_place)
    readers[product, rank % N_READERS] = token[~is_own][order]
    shared_places[product, rank % N_READERS] = spot[~is_own][order]
    # Where to find each pair's product.
    parts = np.full(n_tokens * n_places, n_own + n_shared * N_READERS)
    parts[spot[is_own]] = at
    parts[spot[~is_own][order]] = n_own + product * N_READERS + rank % N_READERS
    mask = np.full((n_tokens, 1, n_places * BLOCK_TOKENS), np.float32(MASKED))
    mask[: len(positions), 0] = _mask(positions, n_places)

    def tensor(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Pairs(
        n_tokens=len(positions),
        n_places=n_places,
        blocks=None if is_dense else tensor(own_ids),
        owners=tensor(owners),
        own_places=tensor(own_places),
        shared_blocks=tensor(shared_ids),
        readers=tensor(readers),
        shared_places=tensor(shared_places),
        parts=tensor(parts),
        mask=tensor(mask),
    )
