"""Into attention and out of it: norm, one product for queries, keys and values, rotation; and the output projection.

Rows i and i + head_dim / 2 of wq and wk are put side by side where the weights are rounded, so that two dimensions that
turn together are one complex number, and turning is one multiplication. Scores are the same in any order of dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from puna.training.speed.handwritten.unit_rows import unit_rows, unit_rows_gradient

__all__ = ["add_projected_heads", "project_heads"]


def project_heads(
    x: Float[Tensor, "batch seq dim"],
    gain: Float[Tensor, " dim"],
    wq: Float[Tensor, "q_dim dim"],
    wk: Float[Tensor, "kv_dim dim"],
    wv: Float[Tensor, "kv_dim dim"],
    turns: Complex[Tensor, "batch_or_1 seq 1 half"],
    *,
    eps: float,
    dtype: torch.dtype,
) -> tuple[
    Float[Tensor, "batch head seq head_dim"],
    Float[Tensor, "batch kv_head seq head_dim"],
    Float[Tensor, "batch kv_head seq head_dim"],
]:
    """Queries, keys and values of RMSNorm(x) in `dtype`, the first two turned, their dimensions in another order.

    Args:
        turns: cos + i sin of each position's angles.
    """
    return _Project.apply(x, gain, wq, wk, wv, turns, eps, dtype)


def add_projected_heads(
    x: Float[Tensor, "batch seq dim"],
    heads: Float[Tensor, "batch head seq head_dim"],
    wo: Float[Tensor, "dim q_dim"],
) -> Float[Tensor, "batch seq dim"]:
    """x + wo(heads): the product in the heads' dtype, the residual stream in x's."""
    return _Write.apply(x, heads, wo)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        wq: Tensor,
        wk: Tensor,
        wv: Tensor,
        turns: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        head_dim = 2 * turns.shape[-1]
        unit, per_row = unit_rows(x.flatten(0, 1), eps, dtype=dtype)
        joined = x.new_empty(len(wq) + len(wk) + len(wv), x.shape[2], dtype=dtype)
        for part, weight in zip(_parts(joined, wq, wk, wv), (wq, wk, wv), strict=True):
            scaled = weight * gain
            if weight is wv:
                part.copy_(scaled)
            else:
                part.view(-1, head_dim // 2, 2, x.shape[2]).copy_(_halves(scaled, head_dim))
        heads = (unit @ joined.t()).view(*x.shape[:2], -1, head_dim)
        n_turned = (len(wq) + len(wk)) // head_dim
        turned = heads[:, :, :n_turned].to(x.dtype)
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(turns)
        ctx.save_for_backward(unit, per_row, joined, turns, gain, wq, wk, wv)
        q, k = turned.transpose(1, 2).split([len(wq) // head_dim, len(wk) // head_dim], dim=1)
        return (
            _contiguous(q, dtype),
            _contiguous(k, dtype),
            _contiguous(heads[:, :, n_turned:].transpose(1, 2), dtype),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        unit, per_row, joined, turns, gain, *weights = ctx.saved_tensors
        of_q, of_k, of_v = gradients
        batch, n_heads, seq, head_dim = of_q.shape
        n_turned = n_heads + of_k.shape[1]
        turned = per_row.new_empty(batch, seq, n_turned, head_dim)
        turned[:, :, :n_heads] = of_q.transpose(1, 2)
        turned[:, :, n_heads:] = of_k.transpose(1, 2)
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(turns.conj())
        of_heads = unit.new_empty(batch, seq, n_turned + of_v.shape[1], head_dim)
        of_heads[:, :, :n_turned] = turned
        of_heads[:, :, n_turned:] = of_v.transpose(1, 2)
        rows = of_heads.view(len(unit), -1)
        of_x = unit_rows_gradient(rows @ joined, unit, per_row).view(batch, seq, -1)
        of_joined = (rows.t() @ unit).to(gain.dtype)
        of_gain, of_weights = torch.zeros_like(gain), []
        for part, weight in zip(_parts(of_joined, *weights), weights, strict=True):
            if weight is not weights[2]:
                part = part.view(-1, head_dim // 2, 2, len(gain)).transpose(1, 2).reshape(weight.shape)
            of_gain += (part * weight).sum(0)
            of_weights.append(part.mul_(gain))
        return of_x, of_gain, *of_weights, None, None, None


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: Tensor, wo: Tensor) -> Tensor:
        rows = heads.transpose(1, 2).reshape(-1, wo.shape[1])
        low = wo.to(heads.dtype)
        ctx.save_for_backward(rows, low)
        ctx.shape, ctx.dtype = heads.shape, wo.dtype
        return x + (rows @ low.t()).to(x.dtype).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, low = ctx.saved_tensors
        (of_out,) = gradients
        batch, n_heads, seq, head_dim = ctx.shape
        narrow = of_out.to(rows.dtype).flatten(0, 1)
        of_heads = (narrow @ low).view(batch, seq, n_heads, head_dim).transpose(1, 2)
        return of_out, of_heads, (narrow.t() @ rows).to(ctx.dtype)


def _parts(joined: Tensor, *weights: Tensor) -> Sequence[Tensor]:
    """The rows that belong to each weight."""
    return joined.split([len(weight) for weight in weights])


def _halves(weight: Tensor, head_dim: int) -> Tensor:
    """(head * half, dim) rows seen as (head, half, 2, dim): a row and the one half a head below it."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2)


def _contiguous(x: Tensor, dtype: torch.dtype) -> Tensor:
    """One copy that transposes and rounds."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)
