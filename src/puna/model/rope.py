"""Rotary position embedding (§2.2; Su et al. 2022) in the half-split layout of Hugging Face checkpoints.

Dimension i of a head turns together with dimension i + head_dim / 2, where Meta's files pair 2i with 2i + 1: the
same rotation after a permutation of the rows of wq and wk.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.model.rope_scaling import DynamicNTKScaling, RopeScaling, YarnScaling, frequencies

__all__ = ["Rotation", "rotate", "rotation"]

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, both (batch or 1, seq, 1, head_dim / 2) in float32."""


def rotation(
    positions: Int[Tensor, "batch seq"],
    *,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    document_ids: Int[Tensor, "batch_or_more seq"] | None = None,
) -> Rotation:
    """The angles position * theta^(-2i / head_dim), scaled; made once a forward pass and shared by all layers.

    Dynamic NTK scaling takes a text's length from its last position in this call: a whole text equals
    transformers'; a cached key keeps the angle of the call that stored it, as in transformers; beyond the trained
    context, reading in pieces therefore differs from reading at once.
    Differs: transformers lets the longest row of a batch decide for all; here each row, and each packed document,
    has its own length, so that a text does not depend on its neighbours.
    """
    n_tokens = _lengths(positions, document_ids) if isinstance(scaling, DynamicNTKScaling) else positions
    per_position = frequencies(scaling, head_dim=head_dim, theta=theta, n_tokens=n_tokens)
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


def _lengths(positions: Tensor, document_ids: Tensor | None) -> Tensor:
    """For each position, the tokens of its row, or of its document, up to the last one here."""
    n_tokens = positions + 1
    if document_ids is None:
        return n_tokens.amax(dim=1, keepdim=True)
    slots = document_ids - document_ids.min()
    n_tokens = n_tokens.expand_as(slots)
    longest = n_tokens.new_zeros(len(slots), int(slots.max()) + 1).scatter_reduce(1, slots, n_tokens, "amax")
    return longest.gather(1, slots)
