"""Which weights an engine generates with, and in which dtype it computes."""

import torch

from puna.inference.fused import FusedTransformer
from puna.model.transformer import Transformer

__all__ = ["compute_dtype", "inference_model"]


def compute_dtype(model: Transformer) -> torch.dtype:
    """The dtype of matrix products here and now: autocast's where it is on, else the weights'."""
    weight = model.tok_embeddings.weight
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def inference_model(
    model: Transformer, dtype: torch.dtype, *, has_int8_weights: bool = False, compiles: bool = False
) -> Transformer:
    """The model that generates: with fused copies of its weights where that pays, else the model itself.

    Copies pay on a CPU in bfloat16 (fewer and larger products, packed weights), under autocast (no cast a step), and
    where the weights become 8 bits; compilation is of the fused layers.
    """
    weight = model.tok_embeddings.weight
    is_narrow = (weight.device.type, dtype) == ("cpu", torch.bfloat16)
    if has_int8_weights or compiles or is_narrow or dtype != weight.dtype:
        return FusedTransformer(model, dtype=dtype, has_int8_weights=has_int8_weights, compiles=compiles)
    return model
