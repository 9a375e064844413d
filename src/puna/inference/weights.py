"""When an engine's model has changed, and in which dtype it computes."""

import torch
from torch import nn

from puna.inference.fused import FusedTransformer
from puna.model.transformer import Transformer

__all__ = ["compute_dtype", "inference_model", "weights_stamp"]


def compute_dtype(model: Transformer) -> torch.dtype:
    """The dtype of matrix products here and now: autocast's where it is on, else the weights'."""
    weight = model.tok_embeddings.weight
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def weights_stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Changes whenever a weight is replaced or written in place, as an optimizer and load_state_dict do."""
    return tuple(
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in model.parameters()
    )


def inference_model(model: Transformer, dtype: torch.dtype, *, has_int8_weights: bool = False) -> Transformer:
    """The model that generates: with fused copies of its weights where that pays, else the model itself.

    Copies pay on a CPU in bfloat16 (fewer and larger products), under autocast (no cast a step), and where the weights
    become 8 bits.
    """
    weight = model.tok_embeddings.weight
    if has_int8_weights or dtype != weight.dtype or (weight.device.type, dtype) == ("cpu", torch.bfloat16):
        return FusedTransformer(model, dtype=dtype, has_int8_weights=has_int8_weights)
    return model
