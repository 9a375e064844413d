"""Keys and values in blocks that many sequences share, and attention over them without first copying them together.

A step holds tokens of many sequences, one per row. `AttentionPlan` says which blocks each token sees; it is made once
per step by `attention_plan` and serves all layers. Every sum is `blockwise_attention`'s.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from puna.model.attention import AttentionMask
from puna.model.blockwise_attention import BLOCK_TOKENS, attend_blocks
from puna.model.config import ModelConfig

__all__ = ["Alone", "AttentionPlan", "BlockGroup", "Gathered", "PagedCache", "Pairs", "Span"]

CACHE_LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens of one sequence: a piece of a prompt."""

    start: int
    end: int
    """Rows of the step."""
    blocks: Int[Tensor, " block"]
    """All that they see, in order."""
    mask: Float[Tensor, "1 1 query key"]


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks with equally many readers each: one batched product of m rows a block and kv head."""

    n_blocks: int
    blocks: Int[Tensor, " block"] | None
    """None is the first blocks of the pool, which need no copy."""
    query_rows: Int[Tensor, " row"]
    """(block, kv_head, m): which row of (token, head) each row of the product is."""
    weight_rows: Int[Tensor, " row"]
    """(block, kv_head, m): which row of (token, head, place)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """(token, block) pairs of the step's first tokens, with the rows of all products counted through the groups."""

    n_tokens: int
    """The step's first rows; rows of the mask beyond these are fillers."""
    groups: tuple[BlockGroup, ...]
    score_rows: Int[Tensor, " row"]
    """(token, head, place): where its product is; a place beyond the text's end has the rows of zeros at the end.
    Fillers have some row: their mask hides it."""
    part_rows: Int[Tensor, " row"]
    """The same as (token, place, head)."""
    mask: Float[Tensor, "token 1 key"]
    n_zero_rows: int
    """Query heads of a kv head, or none where every token sees every place."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The step's one token: the products of `Pairs` without the tables that bring many tokens' rows together."""

    first_block: int
    n_blocks: int
    blocks: Int[Tensor, " block"] | None
    """None where they lie side by side in the pool, which needs no copy."""
    mask: Float[Tensor, "1 key"]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Single tokens on an accelerator: each one's blocks are copied together; shapes depend on the sizes only."""

    n_tokens: int
    """The step's first rows; rows of the tables beyond these are fillers."""
    tables: Int[Tensor, "token place"]
    mask: Float[Tensor, "token 1 1 key"]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Who sees what in one step."""

    key_rows: Int[Tensor, " row"]
    """(token, kv_head): which row of (block, kv_head, offset) its key and value go to."""
    spans: tuple[Span, ...]
    singles: Pairs | Alone | Gathered | None
    """The tokens that are in no span."""


class PagedCache:
    """The pool of blocks; block 0 takes the keys of rows that only fill up a step."""

    def __init__(
        self, config: ModelConfig, *, n_blocks: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        shape = (2, config.n_layers, n_blocks, config.n_kv_heads, BLOCK_TOKENS, config.head_dim)
        self.keys, self.values = _zeros(shape, dtype, torch.device(device))
        self.plan: AttentionPlan | None = None

    @property
    def n_blocks(self) -> int:
        """Blocks of the pool."""
        return self.keys.shape[1]

    def copy_blocks(self, sources: Int[Tensor, " block"], targets: Int[Tensor, " block"]) -> None:
        """Copy blocks in all layers: before a sequence writes where another one reads."""
        for buffer in (self.keys, self.values):
            buffer[:, targets] = buffer[:, sources]

    def positions(self, n_new: int) -> Int[Tensor, "batch_or_1 seq"]:
        """Not known here: the rows of a step are tokens of many sequences."""
        raise RuntimeError("a step of the engine brings its own positions")

    def mask(self, n_new: int) -> AttentionMask:
        """None: the plan says who sees what."""
        return None

    def advance(self, n_new: int) -> None:
        """Nothing to count: the scheduler knows each sequence's length."""

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "token 1 head head_dim"],
        k: Float[Tensor, "token 1 kv_head head_dim"],
        v: Float[Tensor, "token 1 kv_head head_dim"],
        mask: AttentionMask = None,
    ) -> Float[Tensor, "token 1 dim"]:
        """Store this step's keys and values, then let every token see its own sequence up to itself.

        Args:
            mask: Not looked at: the plan has one for each kind of token.
        """
        assert self.plan is not None, "a step needs a plan"
        plan, keys, values = self.plan, self.keys[layer], self.values[layer]
        for buffer, new in ((keys, k), (values, v)):
            buffer.view(-1, new.shape[3]).index_copy_(0, plan.key_rows, new.flatten(0, 2).to(buffer.dtype))
        rows = q.squeeze(1)
        singles = plan.singles
        if isinstance(singles, Alone):  # the rows below are fillers
            return _attend_alone(rows[:1], keys, values, singles).expand(len(rows), -1)[:, None]
        if singles is not None and not plan.spans:
            return _attend_singles(rows, keys, values, singles).flatten(1)[:, None]
        out = rows.new_zeros(rows.shape)
        for span in plan.spans:
            out[span.start : span.end] = _attend_span(rows, keys, values, span)
        if singles is not None:
            attended = _attend_singles(rows[: len(singles.mask)], keys, values, singles)
            out[: singles.n_tokens] = attended[: singles.n_tokens]
        return out.flatten(1)[:, None]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU, memory that the system hands out page by page when it is first written.

    Unwritten keys are read and masked: they must be finite.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.zeros(n_bytes + CACHE_LINE_BYTES, dtype=np.uint8)
    start = -memory.ctypes.data % CACHE_LINE_BYTES
    return torch.from_numpy(memory[start : start + n_bytes]).view(dtype).view(shape)


def _attend_span(rows: Tensor, keys: Tensor, values: Tensor, span: Span) -> Tensor:
    """One sequence's neighbouring tokens, as one dense product."""
    q = rows[span.start : span.end].transpose(0, 1)[None]  # (1, head, query, head_dim)
    k, v = (x.index_select(0, span.blocks).transpose(0, 1).flatten(1, 2)[None] for x in (keys, values))
    if q.device.type == "cpu":
        return attend_blocks(q, k, v, span.mask)[0].transpose(0, 1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=span.mask.type_as(q), enable_gqa=True)
    return out[0].transpose(0, 1)


def _attend_singles(rows: Tensor, keys: Tensor, values: Tensor, singles: Pairs | Gathered) -> Tensor:
    if isinstance(singles, Pairs):
        return _attend_pairs(rows, keys, values, singles)
    n_tokens, n_places = singles.tables.shape
    k, v = (
        x.index_select(0, singles.tables.flatten())
        .unflatten(0, (n_tokens, n_places))
        .transpose(1, 2)
        .flatten(2, 3)
        for x in (keys, values)
    )  # (token, kv_head, key, head_dim)
    q = rows[:, :, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=singles.mask, enable_gqa=True)[:, :, 0]


def _attend_pairs(rows: Tensor, keys: Tensor, values: Tensor, pairs: Pairs) -> Tensor:
    """Tokens of many sequences: a product for each block, the blocks of a token brought together for its softmax."""
    n_tokens, n_heads, head_dim = rows.shape
    q = (rows * head_dim**-0.5).view(-1, head_dim)
    scores = _by_block(q, keys.transpose(2, 3), pairs, [group.query_rows for group in pairs.groups])
    scores = scores.index_select(0, pairs.score_rows).view(n_tokens, n_heads, -1)
    probs = (
        scores.add_(pairs.mask).softmax(-1).view(-1, BLOCK_TOKENS)
    )  # in float32 inside, whatever the dtype
    parts = _by_block(probs, values, pairs, [group.weight_rows for group in pairs.groups])
    return parts.index_select(0, pairs.part_rows).view(n_tokens, -1, n_heads, head_dim).sum(1)


def _attend_alone(row: Tensor, keys: Tensor, values: Tensor, alone: Alone) -> Tensor:
    """One token; (1, dim). Every sum is that of `_attend_pairs`."""
    (n_heads, head_dim), n = row.shape[1:], alone.n_blocks
    k, v = (
        x[alone.first_block : alone.first_block + n]
        if alone.blocks is None
        else x.index_select(0, alone.blocks)
        for x in (keys, values)
    )
    q = (row * head_dim**-0.5).view(1, keys.shape[1], -1, head_dim).expand(n, -1, -1, -1)
    scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))  # (block and kv head, group, key)
    scores = scores.view(n, n_heads, -1).transpose(0, 1).reshape(n_heads, -1)
    probs = scores.add_(alone.mask).softmax(-1).view(n_heads, n, -1).transpose(0, 1)
    parts = torch.bmm(probs.reshape(len(v) * v.shape[1], -1, BLOCK_TOKENS), v.flatten(0, 1))
    return parts.view(n, 1, -1).sum(0)


def _by_block(x: Tensor, blocks: Tensor, pairs: Pairs, rows_of: list[Tensor]) -> Tensor:
    """The products of all groups, a row under the other, then rows of zeros: one a query head of a kv head."""
    n_kv_heads, inner, outer = blocks.shape[1:]
    n_rows = sum(len(rows) for rows in rows_of)
    products = x.new_empty(n_rows + pairs.n_zero_rows, outer)
    if pairs.n_zero_rows:
        products[n_rows:] = 0
    start = 0
    for group, rows in zip(pairs.groups, rows_of, strict=True):
        n_products = group.n_blocks * n_kv_heads
        taken = blocks[: group.n_blocks] if group.blocks is None else blocks.index_select(0, group.blocks)
        torch.bmm(
            x.index_select(0, rows).view(n_products, -1, inner),
            taken.flatten(0, 1),
            out=products[start : start + len(rows)].view(n_products, -1, outer),
        )
        start += len(rows)
    return products
