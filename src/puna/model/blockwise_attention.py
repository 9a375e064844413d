"""Attention over key blocks of one fixed size, so that a query's bits do not depend on what surrounds it.

Scores of a block, one softmax over all blocks, one product with the values for each block, one sum over blocks:
whoever splits a text at multiples of BLOCK_TOKENS (the engine's cache, a chunk of a prompt, the trainer's whole
row) adds the same numbers in the same order. Measurements in docs/decisions/0022-batch-invariant-inference.md.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["BLOCK_TOKENS", "MASKED", "ROW_MULTIPLE", "attend_blocks", "full_rows", "round_up"]

BLOCK_TOKENS = 64
"""Keys in a block, in the cache and in the sums; our choice. A multiple of 16, torch's widest softmax vector."""

ROW_MULTIPLE = 16
"""Rows of a float32 matrix product on a CPU are filled up to a multiple of this: below it, and in the remainder
that a thread is left with, the library changes to another kernel, whose sums differ in the last bits."""

MASKED = -60_000.0
"""Added to a score that must not count: exp gives exactly 0. Finite in every dtype, so that padding, which sees
nothing, stays finite too."""

MAX_SCORES = 2**24
"""Scores held at once: 64 MB in float32."""


def round_up(n: int, multiple: int) -> int:
    """The next multiple, or n itself."""
    return -(-n // multiple) * multiple


def full_rows(
    product: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch outer"]:
    """A matrix product of the rows of x whose bits do not depend on how many rows there are."""
    n_rows = x.shape[:-1].numel()
    filling = round_up(n_rows, ROW_MULTIPLE) - n_rows
    if not filling or x.device.type != "cpu" or x.dtype != torch.float32:
        return product(x)
    return product(F.pad(x.reshape(n_rows, -1), (0, 0, 0, filling)))[:n_rows].view(*x.shape[:-1], -1)


def attend_blocks(
    q: Float[Tensor, "batch head query head_dim"],
    k: Float[Tensor, "batch kv_head key head_dim"],
    v: Float[Tensor, "batch kv_head key head_dim"],
    mask: Float[Tensor, "batch_or_1 1 query key"] | None,
) -> Float[Tensor, "batch head query head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + mask) v by blocks of keys, with the softmax in float32.

    Args:
        mask: None is causal; queries are then all the keys.
    """
    n_query, n_keys = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.full((n_query, n_keys), MASKED).triu_(1)[None, None]
    more_keys = round_up(n_keys, BLOCK_TOKENS) - n_keys
    more_queries = round_up(n_query, ROW_MULTIPLE) - n_query
    if more_keys:
        k, v = (F.pad(x, (0, 0, 0, more_keys)) for x in (k, v))
    if more_keys or more_queries:
        mask = F.pad(mask, (0, more_keys, 0, more_queries), value=MASKED)
    if more_queries:
        q = F.pad(q, (0, 0, 0, more_queries))
    per_query = q.shape[0] * q.shape[1] * k.shape[2]
    n_chunk = max(ROW_MULTIPLE, MAX_SCORES // per_query // ROW_MULTIPLE * ROW_MULTIPLE)
    if torch.is_grad_enabled() or n_chunk >= q.shape[2]:
        return _attend(q, k, v, mask)[:, :, :n_query]
    chunks = zip(q.split(n_chunk, dim=2), mask.split(n_chunk, dim=2), strict=True)
    return torch.cat([_attend(part, k, v, part_mask) for part, part_mask in chunks], dim=2)[:, :, :n_query]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    n_keys, head_dim = k.shape[2:]
    grouped = (q * head_dim**-0.5).reshape(
        q.shape[0], k.shape[1], -1, head_dim
    )  # (batch, kv_head, row, head_dim)
    scores = (grouped @ k.transpose(2, 3)).view(*q.shape[:3], n_keys)
    probs = (scores + mask).softmax(dim=-1, dtype=torch.float32).type_as(v).view(*grouped.shape[:3], n_keys)
    n_blocks = n_keys // BLOCK_TOKENS
    weights, values = probs.unflatten(-1, (n_blocks, BLOCK_TOKENS)), v.unflatten(2, (n_blocks, BLOCK_TOKENS))
    if torch.is_grad_enabled():  # views: copies of the probabilities would be kept for the gradient
        parts = torch.stack([weights[:, :, :, b] @ values[:, :, b] for b in range(n_blocks)])
    else:
        by_block = (weights.permute(3, 0, 1, 2, 4), values.permute(2, 0, 1, 3, 4))
        parts = torch.bmm(*(x.flatten(0, 2) for x in by_block))
    return parts.view(n_blocks, *q.shape).sum(0)
