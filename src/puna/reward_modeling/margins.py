"""Margins of the ranking loss by rating (§3.2.2, Eq. 2 and Table 27)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from puna.core.records import Rating

__all__ = ["MARGINS", "MarginScale", "margins"]

MarginScale = Literal["none", "small", "large"]

MARGINS: dict[MarginScale, dict[Rating, float]] = {
    "none": {"significantly_better": 0.0, "better": 0.0, "slightly_better": 0.0, "negligibly_better": 0.0},
    "small": {
        "significantly_better": 1.0,
        "better": 2 / 3,
        "slightly_better": 1 / 3,
        "negligibly_better": 0.0,
    },
    "large": {"significantly_better": 3.0, "better": 2.0, "slightly_better": 1.0, "negligibly_better": 0.0},
}
"""m(r) in logits: Table 27's two scales, and none, which makes Eq. 2 into Eq. 1."""


def margins(ratings: Sequence[Rating], scale: MarginScale) -> Float[Tensor, " pair"]:
    """m(r) of each pair."""
    return torch.tensor([MARGINS[scale][rating] for rating in ratings], dtype=torch.float32)
