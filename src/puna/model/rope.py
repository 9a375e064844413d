"""Rotary position embedding (§2.2; Su et al. 2022) in the half-split layout of Hugging Face checkpoints.

Dimension i of a head turns together with dimension i + head_dim / 2, where Meta's files pair 2i with 2i + 1: the
same rotation after a permutation of the rows of wq and wk.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Rotation", "rotate", "rotation"]

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, both (batch or 1, seq, 1, head_dim / 2) in float32."""


def rotation(positions: Int[Tensor, "batch seq"], *, head_dim: int, theta: float) -> Rotation:
    """The angles position * theta^(-2i / head_dim); made once a forward pass and shared by all layers."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[..., None, None].float() / theta**exponents  # (batch, seq, 1, head_dim / 2)
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "batch seq head head_dim"], by: Rotation
) -> Float[Tensor, "batch seq head head_dim"]:
    """Turn each pair of dimensions by its angle, in float32, and return the input's dtype."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)
