"""In which precision a forward pass makes its products: the one place, for the loop and for PPO alike."""

from typing import Literal

import torch
from torch import nn

__all__ = ["precision"]


def precision(model: nn.Module, dtype: Literal["float32", "bfloat16", "float8"]) -> torch.autocast:
    """bfloat16 products over float32 weights, where asked for; float8 blocks cast within it (speed/float8.py)."""
    device_type = next(model.parameters()).device.type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=dtype != "float32")
