"""Who sees which block in a step: pieces of prompts as spans, single tokens as (token, block) pairs."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from puna.inference.paged_cache import Alone, AttentionPlan, BlockGroup, Gathered, Pairs, Span
from puna.model.blockwise_attention import BLOCK_TOKENS, MASKED, round_up
from puna.model.config import ModelConfig

__all__ = ["Heads", "Pieces", "pair_up", "plan_attention"]

N_READERS = 8
"""Tokens that read a shared block in one product; more of them repeat the block. Our choice."""

MIN_SPAN_TOKENS = 48
"""Shorter pieces are planned token by token. Our choice, by measurement."""

MAX_SPAN_TOKENS = 128
"""Longer pieces are split, so that their first tokens do not compute scores with keys after them. Our choice."""

FILLED_MULTIPLE = 16
"""Tokens that are planned one by one are filled up to a multiple of this."""

BATCHED_ROW_MULTIPLE = 4
"""Rows a product in a batch of float32 products on a CPU is filled up to: the kernels for 1 to 3 rows sum in
another order."""

OWN_MULTIPLE, SHARED_MULTIPLE = 32, 8
"""Numbers of blocks are filled up to these: oneDNN compiles and keeps a kernel for every size. Fewer own blocks than
OWN_MULTIPLE are filled up to a power of two: a single sequence should not pay for a crowd."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The sequences of a step, a row each: tokens one after the other; the long pieces come last."""

    tables: NDArray[np.int64]
    """(sequence, place): each one's blocks in order."""
    first_positions: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    n_shared: NDArray[np.int64]
    """Positions before this are in blocks that others read: their keys and values are there and stay as they are."""

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


@dataclass(frozen=True, slots=True)
class Heads:
    """What of a model the plan depends on."""

    n_heads: int
    n_kv_heads: int
    n_own_rows: int
    """Rows of the product of a block and its one reader: the query heads of a kv head, or more to fill it up."""

    @classmethod
    def of(cls, config: ModelConfig, *, is_picky: bool) -> "Heads":
        """The heads of a model.

        Args:
            is_picky: Products of few rows sum in another order here: float32 on a CPU.
        """
        group = config.n_heads // config.n_kv_heads
        return cls(
            config.n_heads, config.n_kv_heads, round_up(group, BATCHED_ROW_MULTIPLE) if is_picky else group
        )

    @property
    def group(self) -> int:
        """Query heads of a kv head."""
        return self.n_heads // self.n_kv_heads


def plan_attention(
    pieces: Pieces,
    heads: Heads,
    *,
    n_rows: int,
    n_blocks: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    gathers: bool = False,
    n_places: int = 1,
) -> AttentionPlan:
    """The plan of a step of `n_rows`: the pieces' tokens one after the other, then fillers.

    Args:
        n_blocks: Blocks of the pool.
        dtype: Of the scores.
        gathers: Single tokens copy their blocks together; every longer piece is a span. For accelerators.
        n_places: Blocks that a single token then copies at least.
    """
    starts, piece, positions = pieces.starts(), pieces.owners(), pieces.positions()
    block, offset = np.zeros((2, n_rows), dtype=np.int64)
    is_new = positions >= pieces.n_shared[piece]
    block[: len(piece)] = np.where(is_new, pieces.tables[piece, positions // BLOCK_TOKENS], 0)
    offset[: len(piece)] = positions % BLOCK_TOKENS
    kv_heads = np.arange(heads.n_kv_heads)
    key_rows = (block[:, None] * heads.n_kv_heads + kv_heads) * BLOCK_TOKENS + offset[:, None]
    n_short = int((pieces.n_tokens < (2 if gathers else MIN_SPAN_TOKENS)).sum())
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
    singles: Pairs | Alone | Gathered | None = None
    if n_single:
        n_places = max(n_places if gathers else 1, int(positions[:n_single].max()) // BLOCK_TOKENS + 1)
        tables = pieces.tables[piece[:n_single], :n_places]
        n_filled = n_rows if not spans else min(round_up(n_single, FILLED_MULTIPLE), n_rows)
        if gathers:
            singles = _gather(tables, positions[:n_single], n_filled, n_places, device, dtype)
        elif n_single == 1 and not spans and heads.n_own_rows == heads.group:
            singles = _alone(tables[0], positions[:1], n_blocks, device, dtype)
        else:
            singles = pair_up(
                tables,
                positions[:n_single],
                heads,
                n_tokens=n_filled,
                n_pool=n_blocks,
                device=device,
                dtype=dtype,
            )
    return AttentionPlan(torch.from_numpy(key_rows.reshape(-1)).to(device), tuple(spans), singles)


def _alone(
    table: NDArray[np.int64],
    positions: NDArray[np.int64],
    n_pool: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Alone:
    """One token's blocks, filled up to a power of two with others that its mask hides."""
    n_blocks, first = _filled(len(table)), int(table[0])
    lies_together = np.array_equal(table, np.arange(first, first + len(table))) and first + n_blocks <= n_pool
    blocks = np.zeros(n_blocks, dtype=np.int64)
    blocks[: len(table)] = table
    return Alone(
        first_block=first,
        n_blocks=n_blocks,
        blocks=None if lies_together else torch.from_numpy(blocks).to(device),
        mask=torch.from_numpy(_mask(positions, n_blocks)).to(device, dtype),
    )


def _gather(
    tables: NDArray[np.int64],
    positions: NDArray[np.int64],
    n_tokens: int,
    n_places: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Gathered:
    """Every single token's blocks, filled up to one size."""
    all_tables = np.zeros((n_tokens, n_places), dtype=np.int64)
    all_tables[: len(tables), : tables.shape[1]] = tables
    mask = np.full((n_tokens, 1, 1, n_places * BLOCK_TOKENS), np.float32(MASKED))
    mask[: len(positions), 0, 0] = _mask(positions, n_places)
    return Gathered(
        n_tokens=len(positions),
        tables=torch.from_numpy(all_tables).to(device),
        mask=torch.from_numpy(mask).to(device, dtype),
    )


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
    heads: Heads,
    *,
    n_tokens: int,
    n_pool: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Pairs:
    """Pairs of tokens and blocks, from each token's own row of blocks.

    Args:
        n_tokens: Tokens with the fillers.
        n_pool: Blocks of the pool.
        dtype: Of the scores.
    """
    n_places = tables.shape[1]
    token, place = (np.arange(n_places) <= positions[:, None] // BLOCK_TOKENS).nonzero()
    block = tables[token, place]
    n_readers = np.bincount(block, minlength=n_pool)[block]
    chunks: list[_Chunk] = []
    alone = np.flatnonzero(n_readers == 1)
    if len(alone):
        chunks.extend(_own_chunks(block, alone, n_pool))
    together = np.flatnonzero(n_readers > 1)
    if len(together):
        chunks.append(_shared_chunk(block, together))
    groups = []
    first_row = np.zeros((n_tokens, n_places), dtype=np.int64)
    stride = np.zeros((n_tokens, n_places), dtype=np.int64)
    n_rows = 0
    kv_head, in_group = np.arange(heads.n_kv_heads)[:, None], np.arange(heads.group)
    is_absent = np.ones((n_tokens, n_places), dtype=bool)
    for chunk in chunks:
        # Rows of one block and kv head: for each reader its query heads, filled up where there is one reader only.
        per_reader = heads.n_own_rows if chunk.n_readers == 1 else heads.group
        m = chunk.n_readers * per_reader
        member = np.full((len(chunk.blocks), chunk.n_readers), -1)
        member[chunk.product, chunk.reader] = chunk.pairs
        head = kv_head * heads.group + np.minimum(np.arange(per_reader), heads.group - 1)  # (kv_head, row)
        query = (token[member][:, None, :, None] * heads.n_heads + head[:, None]).reshape(-1)
        weight = query * n_places + np.broadcast_to(
            place[member][:, None, :, None], (len(member), heads.n_kv_heads, chunk.n_readers, per_reader)
        ).reshape(-1)
        groups.append(
            BlockGroup(
                n_blocks=len(chunk.blocks),
                blocks=None if chunk.is_dense else torch.from_numpy(chunk.blocks).to(device),
                query_rows=torch.from_numpy(query).to(device),
                weight_rows=torch.from_numpy(weight).to(device),
            )
        )
        at = (token[chunk.pairs], place[chunk.pairs])
        first_row[at] = n_rows + chunk.product * heads.n_kv_heads * m + chunk.reader * per_reader
        stride[at], is_absent[at] = m, False
        n_rows += len(query)
    is_absent[len(positions) :] = False
    first_row[is_absent] = n_rows
    rows = (
        first_row[..., None, None] + stride[..., None, None] * kv_head + in_group
    )  # (token, place, kv_head, group)
    part_rows = torch.from_numpy(rows).to(device).view(n_tokens, n_places, heads.n_heads)
    mask = np.full((n_tokens, 1, n_places * BLOCK_TOKENS), np.float32(MASKED))
    mask[: len(positions), 0] = _mask(positions, n_places)
    return Pairs(
        n_tokens=len(positions),
        groups=tuple(groups),
        score_rows=part_rows.transpose(1, 2).flatten(),
        part_rows=part_rows.flatten(),
        mask=torch.from_numpy(mask).to(device, dtype),
        n_zero_rows=heads.group if is_absent.any() else 0,
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pairs whose blocks have equally many readers, as products of a block and its readers."""

    blocks: NDArray[np.int64]
    is_dense: bool
    """The blocks are the pool's first ones."""
    n_readers: int
    pairs: NDArray[np.int64]
    product: NDArray[np.int64]
    """Of each pair."""
    reader: NDArray[np.int64]
    """Of each pair: its place among the block's readers."""


def _filled(n_blocks: int) -> int:
    return (
        round_up(n_blocks, OWN_MULTIPLE)
        if n_blocks > OWN_MULTIPLE // 2
        else 1 << max(n_blocks - 1, 0).bit_length()
    )


def _own_chunks(block: NDArray[np.int64], alone: NDArray[np.int64], n_pool: int) -> list[_Chunk]:
    """Blocks with one reader: the pool's first ones as they lie while most of them are such; copies of the rest."""
    own = np.sort(block[alone])
    is_mostly_own = 2 * np.arange(1, len(own) + 1) >= own + 1
    n_dense = int(own[is_mostly_own][-1]) + 1 if is_mostly_own.any() else 0
    n_dense = min(_filled(n_dense), n_pool)
    chunks = []
    inside = alone[block[alone] < n_dense]
    if len(inside):
        where = block[inside]
        chunks.append(_Chunk(np.arange(n_dense), True, 1, inside, where, np.zeros_like(where)))
    outside = alone[block[alone] >= n_dense]
    if len(outside):
        blocks = np.zeros(_filled(len(outside)), dtype=np.int64)
        blocks[: len(outside)] = block[outside]
        where = np.arange(len(outside))
        chunks.append(_Chunk(blocks, False, 1, outside, where, np.zeros_like(where)))
    return chunks


def _shared_chunk(block: NDArray[np.int64], together: NDArray[np.int64]) -> _Chunk:
    """Blocks with many readers: N_READERS of them in a product, and the block again for more."""
    pairs = together[np.argsort(block[together], kind="stable")]
    shared = block[pairs]
    starts = np.flatnonzero(np.diff(shared, prepend=-1))
    sizes = np.diff(starts, append=len(shared))
    n_products = -(-sizes // N_READERS)
    rank = np.arange(len(shared)) - np.repeat(starts, sizes)
    product = np.repeat(n_products.cumsum() - n_products, sizes) + rank // N_READERS
    blocks = np.zeros(round_up(int(n_products.sum()), SHARED_MULTIPLE), dtype=np.int64)
    blocks[product] = shared
    return _Chunk(blocks, False, N_READERS, pairs, product, rank % N_READERS)
