"""Rotary position embedding (§2.2; Su et al. 2022) in the half-split layout of Hugging Face checkpoints.

Dimension i of a head turns together with dimension i + head_dim / 2, where Meta's files pair 2i with 2i + 1: the
same rotation after a permutation of the rows of wq and wk.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.model.rope_scaling import RopeScaling, YarnScaling, frequencies

__all__ = ["Rotation", "rotate", "rotation"]

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, both (batch or 1, seq, 1, head_dim / 2) in float32."""


def rotation(
    positions: Int[Tensor, "batch seq"],
    *,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
) -> Rotation:
    """The angles position * theta^(-2i / head_dim), scaled; made once per forward pass and shared by all layers."""
    per_position = frequencies(scaling, head_dim=head_dim, theta=theta, device=positions.device)
    angles = positions[..., None, None].float() * per_position  # (batch, seq, 1, head_dim / 2)
    scale = scaling.scale if isinstance(scaling, YarnScaling) else 1.0
    return angles.cos() * scale, angles.sin() * scale


def rotate(
    x: Float[Tensor, "batch seq head head_dim"], by: Rotation
) -> Float[Tensor, "batch seq head head_dim"]:
    """Turn each pair of dimensions by its angle, in float32, and return the input's dtype."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)
