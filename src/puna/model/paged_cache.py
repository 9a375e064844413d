"""Keys and values in blocks that many sequences share, and attention over them without first copying them together.

A step holds tokens of many sequences, one a row. `AttentionPlan` says which blocks each token sees; it is made once
a step by `puna.inference.attention_plan` and serves all layers. Every sum is `blockwise_attention`'s.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from puna.model.blockwise_attention import BLOCK_TOKENS, attend_blocks, round_up
from puna.model.config import ModelConfig
from puna.model.kv_cache import KVCache

__all__ = ["AttentionPlan", "PagedCache", "Pairs", "Span"]

BATCHED_ROW_MULTIPLE = 4
"""Rows a product in a batch of float32 products on a CPU is filled up to: the kernels for 1 to 3 rows sum in
another order."""


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
class Pairs:
    """(token, block) pairs of the other tokens: blocks that one token sees, and blocks that many see.

    A token index of `n_tokens`, and a place index of `n_tokens * n_places`, is a filler.
    """

    n_tokens: int
    """The step's first rows; rows of the mask beyond these are fillers."""
    n_places: int
    """Most blocks that a token sees."""
    blocks: Int[Tensor, " own"] | None
    """Blocks seen by one token each; None is the first blocks of the pool, which needs no copy."""
    owners: Int[Tensor, " own"]
    """The token that sees each of them."""
    own_places: Int[Tensor, " own"]
    """token * n_places + the block's place in the token's text."""
    shared_blocks: Int[Tensor, " shared"]
    """Blocks seen by several tokens, repeated where those are more than fit one product."""
    readers: Int[Tensor, "shared reader"]
    shared_places: Int[Tensor, "shared reader"]
    parts: Int[Tensor, " place"]
    """For each token and place, where its product is: among the own, then the shared, then one filler."""
    mask: Float[Tensor, "token 1 key"]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Who sees what in one step."""

    slots: Int[Tensor, " token"]
    """Where each token's key and value go: block * BLOCK_TOKENS + offset."""
    spans: tuple[Span, ...]
    pairs: Pairs | None


class PagedCache(KVCache):
    """The pool of blocks; block 0 takes the keys of rows that only fill up a step."""

    def __init__(
        self, config: ModelConfig, *, n_blocks: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        shape = (2, config.n_layers, n_blocks, config.n_kv_heads, BLOCK_TOKENS, config.head_dim)
        self.keys, self.values = _zeros(shape, dtype, torch.device(device))
        self.n_padding = None
        self.length = 0
        self.plan: AttentionPlan | None = None

    @property
    def n_blocks(self) -> int:
        """Blocks of the pool."""
        return self.keys.shape[1]

    def copy_blocks(self, sources: Int[Tensor, " block"], targets: Int[Tensor, " block"]) -> None:
        """Copy blocks in all layers: before a sequence writes where another one reads."""
        for buffer in (self.keys, self.values):
            buffer[:, targets] = buffer[:, sources]

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "token 1 head head_dim"],
        k: Float[Tensor, "token 1 kv_head head_dim"],
        v: Float[Tensor, "token 1 kv_head head_dim"],
    ) -> Float[Tensor, "token 1 dim"]:
        """Store this step's keys and values, then let every token see its own sequence up to itself."""
        assert self.plan is not None, "a step needs a plan"
        plan, keys, values = self.plan, self.keys[layer], self.values[layer]
        block, offset = plan.slots // BLOCK_TOKENS, plan.slots % BLOCK_TOKENS
        keys[block, :, offset] = k.squeeze(1).to(keys.dtype)
        values[block, :, offset] = v.squeeze(1).to(values.dtype)
        rows = q.squeeze(1)
        if plan.pairs is not None and not plan.spans:
            return _attend_pairs(rows, keys, values, plan.pairs).flatten(1)[:, None]
        out = rows.new_zeros(rows.shape)
        for span in plan.spans:
            out[span.start : span.end] = _attend_span(rows, keys, values, span)
        if plan.pairs is not None:
            n_filled, n_tokens = len(plan.pairs.mask), plan.pairs.n_tokens
            out[:n_tokens] = _attend_pairs(rows[:n_filled], keys, values, plan.pairs)[:n_tokens]
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
    k, v = (x[span.blocks].transpose(0, 1).flatten(1, 2)[None] for x in (keys, values))
    return attend_blocks(q, k, v, span.mask)[0].transpose(0, 1)


def _attend_pairs(rows: Tensor, keys: Tensor, values: Tensor, pairs: Pairs) -> Tensor:
    """Tokens of many sequences: a product for each block, the blocks of a token brought together for its softmax."""
    n_tokens, n_heads, head_dim = rows.shape
    n_kv_heads, n_places = keys.shape[1], pairs.n_places
    group = n_heads // n_kv_heads
    fill = round_up(group, BATCHED_ROW_MULTIPLE) - group if _is_picky(rows) else 0
    grouped = (rows * head_dim**-0.5).view(n_tokens, n_kv_heads, group, head_dim)
    q = F.pad(grouped, (0, 0, 0, fill, 0, 0, 0, 1))  # (token + 1, kv_head, row, head_dim)
    scores = _by_block(q, pairs.owners, pairs.readers, keys.transpose(2, 3), pairs)
    scores = scores[pairs.parts].view(n_tokens, n_places, n_kv_heads, -1, BLOCK_TOKENS)
    scores = scores.permute(0, 2, 3, 1, 4).reshape(n_tokens, -1, n_places * BLOCK_TOKENS)
    probs = (scores + pairs.mask).softmax(-1, dtype=torch.float32).type_as(values)
    by_place = probs.view(n_tokens, n_kv_heads, -1, n_places, BLOCK_TOKENS).permute(0, 3, 1, 2, 4)
    p = F.pad(by_place.reshape(n_tokens * n_places, n_kv_heads, -1, BLOCK_TOKENS), (0, 0, 0, 0, 0, 0, 0, 1))
    parts = _by_block(p, pairs.own_places, pairs.shared_places, values, pairs)
    parts = parts[pairs.parts].view(n_tokens, n_places, n_kv_heads, -1, head_dim)
    return parts.sum(1)[:, :, :group].reshape(n_tokens, n_heads, head_dim)


def _by_block(x: Tensor, own: Tensor, shared: Tensor, blocks: Tensor, pairs: Pairs) -> Tensor:
    """x @ block for every pair: the own ones, the shared ones, and a row of zeros for places beyond a text's end."""
    n_kv_heads, inner, outer = blocks.shape[1:]
    taken = blocks[: len(own)] if pairs.blocks is None else blocks[pairs.blocks]
    n_own, n_shared, n_readers = len(own), *shared.shape
    products = x.new_empty(n_own + n_shared * n_readers + 1, n_kv_heads, x.shape[2], outer)
    products[-1] = 0
    if n_own:
        torch.bmm(
            x[own].flatten(0, 1), taken.flatten(0, 1), out=products[:n_own].view(-1, x.shape[2], outer)
        )
    if n_shared:
        rows = x[shared.flatten()].unflatten(0, shared.shape).transpose(1, 2)  # (shared, kv_head, reader, row, inner)
        product = torch.bmm(rows.reshape(n_shared * n_kv_heads, -1, inner), blocks[pairs.shared_blocks].flatten(0, 1))
        product = product.view(n_shared, n_kv_heads, n_readers, -1, outer).transpose(1, 2)
        products[n_own:-1].view(n_shared, n_readers, n_kv_heads, -1, outer).copy_(product)
    return products


def _is_picky(x: Tensor) -> bool:
    """Whether this machine's products of few rows sum in another order."""
    return x.device.type == "cpu" and x.dtype == torch.float32
