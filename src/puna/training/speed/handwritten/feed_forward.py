"""The feed-forward sub-layer, x + w2(silu(w1 n) * w3 n) with n = RMSNorm(x), and its gradient.

The norm's gain is multiplied into the columns of w1 and w3 where they are rounded: one rounding fewer, and the gain's
gradient comes from the small gradients of the weights.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from puna.training.speed.handwritten.unit_rows import unit_rows, unit_rows_gradient

__all__ = ["feed_forward_sublayer"]


def feed_forward_sublayer(
    x: Float[Tensor, "*batch dim"],
    gain: Float[Tensor, " dim"],
    w1: Float[Tensor, "hidden dim"],
    w2: Float[Tensor, "dim hidden"],
    w3: Float[Tensor, "hidden dim"],
    *,
    eps: float,
    dtype: torch.dtype,
) -> Float[Tensor, "*batch dim"]:
    """The residual stream after the sub-layer; matrix products in `dtype`, the stream in x's."""
    return _FeedForward.apply(x.flatten(0, -2), gain, w1, w2, w3, eps, dtype).view_as(x)


class _FeedForward(torch.autograd.Function):
    """Keeps the unit rows, gate and value; silu(gate) and the product with it are made again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        unit, per_row = unit_rows(x, eps, dtype=dtype)
        low1, low2, low3 = (w1 * gain).to(dtype), w2.to(dtype), (w3 * gain).to(dtype)
        gate, value = unit @ low1.t(), unit @ low3.t()
        ctx.save_for_backward(unit, per_row, gate, value, low1, low2, low3, gain, w1, w3)
        return x + (F.silu(gate).mul_(value) @ low2.t()).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        unit, per_row, gate, value, low1, low2, low3, gain, w1, w3 = ctx.saved_tensors
        (of_out,) = gradients
        low = of_out.to(unit.dtype)
        of_hidden = low @ low2
        active = F.silu(gate)
        of_value = of_hidden * active
        of_w2 = (low.t() @ active.mul_(value)).to(gain.dtype)
        of_gate = torch.ops.aten.silu_backward(of_hidden.mul_(value), gate)
        of_unit = (of_gate @ low1).addmm_(of_value, low3)
        of_x = unit_rows_gradient(of_unit, unit, per_row).add_(of_out)
        of_w1, of_w3 = (of_gate.t() @ unit).to(gain.dtype), (of_value.t() @ unit).to(gain.dtype)
        of_gain = (of_w1 * w1).add_(of_w3 * w3).sum(0)
        return of_x, of_gain, of_w1.mul_(gain), of_w2, of_w3.mul_(gain), None, None
