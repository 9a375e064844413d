"""Rows divided by their root mean square: RMSNorm without its gain, forwards and backwards."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["unit_rows", "unit_rows_gradient"]


def unit_rows(
    x: Float[Tensor, "row dim"], eps: float, *, dtype: torch.dtype
) -> tuple[Float[Tensor, "row dim"], Float[Tensor, "row 1"]]:
    """u = x / sqrt(mean(x^2) + eps) rounded to a dtype, and the reciprocal of the root in the input's."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    per_row = norm.square_().div_(x.shape[1]).add_(eps).rsqrt_()
    return (x * per_row).to(dtype), per_row


def unit_rows_gradient(
    gradient: Float[Tensor, "row dim"], unit: Float[Tensor, "row dim"], per_row: Float[Tensor, "row 1"]
) -> Float[Tensor, "row dim"]:
    """(g - u mean(g u)) times the reciprocal root: what reaches x when g reaches u."""
    wide, unit = gradient.to(per_row.dtype), unit.to(per_row.dtype)
    overlap = (wide * unit).mean(-1, keepdim=True)
    return torch.addcmul(wide, unit, overlap, value=-1).mul_(per_row)
