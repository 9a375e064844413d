"""Causal attention by matrix products, and its gradient; blocks of queries skip the keys that come after them.

For short rows on a CPU, where torch's fused kernel is the slower one. Probabilities are kept in the compute dtype.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["attend_causally"]

QUERY_BLOCK = 64
"""Queries that share their last key; our choice: fewer save more products and cost more calls."""


def attend_causally(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    mask: Float[Tensor, "batch_or_1 1 seq seq"],
) -> Float[Tensor, "batch head seq head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + mask) v; the softmax sums in float32.

    Args:
        mask: Hides at least the keys after each query.
    """
    return _Attention.apply(q, k, v, mask.to(q.dtype))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        (batch, n_heads, seq, head_dim), n_kv_heads = q.shape, k.shape[1]
        q = q.reshape(batch * n_kv_heads, -1, seq, head_dim)
        k, v = k.flatten(0, 1), v.flatten(0, 1)
        keys = k.transpose(1, 2)
        outputs, kept = [], []
        for first in range(0, seq, QUERY_BLOCK):
            last = min(first + QUERY_BLOCK, seq)
            rows = q[:, :, first:last].flatten(1, 2)
            scores = torch.baddbmm(
                _seen(mask[:, :, first:last, :last], n_heads, n_kv_heads),
                rows,
                keys[:, :, :last],
                alpha=head_dim**-0.5,
            )
            probs = torch.softmax(scores, dim=-1)
            outputs.append((probs @ v[:, :last]).view(len(q), -1, last - first, head_dim))
            kept += [rows, probs]
        ctx.save_for_backward(k, v, *kept)
        ctx.shape = batch, n_heads, seq, head_dim
        return torch.cat(outputs, dim=2).view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        k, v, *kept = ctx.saved_tensors
        batch, _, seq, head_dim = ctx.shape
        scale = head_dim**-0.5
        of_out = gradients[0].reshape(len(k), -1, seq, head_dim)
        of_q, of_k, of_v = torch.empty_like(of_out), torch.zeros_like(k), torch.zeros_like(v)
        values = v.transpose(1, 2)
        for index, first in enumerate(range(0, seq, QUERY_BLOCK)):
            rows, probs = kept[2 * index : 2 * index + 2]
            last = min(first + QUERY_BLOCK, seq)
            of_rows = of_out[:, :, first:last].flatten(1, 2)
            of_v[:, :last].baddbmm_(probs.transpose(1, 2), of_rows)
            of_probs = of_rows @ values[:, :, :last]
            of_scores = torch.ops.aten._softmax_backward_data(of_probs, probs, -1, probs.dtype)
            of_q[:, :, first:last] = (of_scores @ k[:, :last]).view(len(k), -1, last - first, head_dim)
            of_k[:, :last].baddbmm_(of_scores.transpose(1, 2), rows, alpha=scale)
        of_k, of_v = (x.view(batch, -1, seq, head_dim) for x in (of_k, of_v))
        return of_q.mul_(scale).view(ctx.shape), of_k, of_v, None


def _seen(mask: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    """A block of the mask for the query heads of one key head, one below the other."""
    n_shared = n_heads // n_kv_heads
    if len(mask) == 1:
        return mask[0].repeat(1, n_shared, 1)
    return mask.repeat(1, n_kv_heads, n_shared, 1).flatten(0, 1)
