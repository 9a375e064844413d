"""Causal attention by matrix products, and its gradient; blocks of queries skip the keys that come after them.

For CPUs, where torch's fused kernel is the slower one, in its backward pass above all (docs/training_speed.md).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from puna.model.blockwise_attention import MASKED

__all__ = ["attend_causally"]

QUERY_BLOCK = 64
"""Queries that share their last key; our choice: fewer save more products and cost more calls."""

KEPT_MAX_SEQ = 256
"""Rows up to this length keep their probabilities for the backward pass, longer ones make them again; our choice."""


def attend_causally(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    mask: Float[Tensor, "batch_or_1 1 seq seq"] | None,
) -> Float[Tensor, "batch head seq head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + mask) v; the softmax sums in float32.

    Args:
        mask: Hides at least the keys after each query; None hides nothing else.
    """
    return _Attention.apply(q, k, v, None if mask is None else mask.to(q.dtype))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        batch, n_heads, seq, head_dim = q.shape
        out = q.new_empty(batch, seq, n_heads, head_dim).transpose(1, 2)
        kept = []
        for first in range(0, seq, QUERY_BLOCK):
            rows, probs = _probabilities(q, k, mask, first)
            _rows(out, k, first, write=probs @ v.flatten(0, 1)[:, : first + QUERY_BLOCK])
            if seq <= KEPT_MAX_SEQ:
                kept += [rows, probs]
        ctx.save_for_backward(q, k, v, mask, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, *kept = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        of_q = torch.empty_like(q)
        of_k, of_v = torch.zeros_like(k).flatten(0, 1), torch.zeros_like(v).flatten(0, 1)
        keys, values = k.flatten(0, 1), v.flatten(0, 1).transpose(1, 2)
        for index, first in enumerate(range(0, q.shape[2], QUERY_BLOCK)):
            last = first + QUERY_BLOCK
            pair = kept[2 * index : 2 * index + 2]
            rows, probs = pair if kept else _probabilities(q, k, mask, first)
            of_rows = _rows(gradients[0], k, first)
            of_v[:, :last].baddbmm_(probs.transpose(1, 2), of_rows)
            of_probs = of_rows @ values[:, :, :last]
            of_scores = torch.ops.aten._softmax_backward_data(of_probs, probs, -1, probs.dtype)
            _rows(of_q, k, first, write=of_scores @ keys[:, :last])
            of_k[:, :last].baddbmm_(of_scores.transpose(1, 2), rows, alpha=scale)
        return of_q.mul_(scale), of_k.view_as(k), of_v.view_as(v), None


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, first: int) -> tuple[Tensor, Tensor]:
    """The queries of one block, below one another by key head, and their probabilities of the keys up to the last."""
    rows = _rows(q, k, first)
    keys = k.flatten(0, 1)[:, : first + QUERY_BLOCK].transpose(1, 2)
    n_keys, scale = keys.shape[2], q.shape[-1] ** -0.5
    if mask is None:
        scores = torch.baddbmm(rows.new_empty(()), rows, keys, beta=0, alpha=scale)
        n_rows = n_keys - first
        later = torch.full((n_rows, n_rows), MASKED, dtype=q.dtype, device=q.device).triu_(1)
        scores.unflatten(1, (-1, n_rows))[..., first:].add_(later)
    else:
        n_shared = q.shape[1] // k.shape[1]
        seen = mask[:, :, first:n_keys, :n_keys]
        is_shared = len(seen) == 1
        seen = seen.repeat(1, 1 if is_shared else k.shape[1], n_shared, 1).flatten(0, 1)
        scores = torch.baddbmm(seen, rows, keys, alpha=scale)
    return rows, torch.softmax(scores, dim=-1)


def _rows(x: Tensor, k: Tensor, first: int, *, write: Tensor | None = None) -> Tensor:
    """A block of queries as (batch kv_head, shared query, head_dim): a copy, or the place that `write` is copied to."""
    place = x.unflatten(1, (k.shape[1], -1))[:, :, :, first : first + QUERY_BLOCK]
    if write is not None:
        return place.copy_(write.view(place.shape))
    return place.reshape(len(k) * k.shape[1], -1, x.shape[-1])
