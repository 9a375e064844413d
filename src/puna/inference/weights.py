"""When an engine's model has changed, and in which dtype it computes."""

import weakref

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from puna.inference.fused import FusedTransformer
from puna.model.transformer import Transformer

__all__ = ["WeightsWatch", "compute_dtype", "inference_model"]


def compute_dtype(model: Transformer) -> torch.dtype:
    """The dtype of matrix products here and now: autocast's where it is on, else the weights'."""
    weight = model.tok_embeddings.weight
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


class WeightsWatch:
    """Notices that a model's weights may have changed.

    Storage and version counters tell of replaced weights and of `copy_` (load_state_dict); fused optimizers write
    without counting, so every optimizer step of the process counts as a change too.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._n_steps = 0
        watch = weakref.ref(self)

        def count(optimizer: Optimizer, args: object, kwargs: object) -> None:
            alive = watch()
            if alive is not None:
                alive._n_steps += 1

        weakref.finalize(self, register_optimizer_step_post_hook(count).remove)
        self._seen = self._stamp()

    def has_changed(self) -> bool:
        """Since the beginning, or since the last `look`."""
        return self._stamp() != self._seen

    def look(self) -> None:
        """Take the weights as they are for known."""
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        weights = self._model.parameters()
        versions = ((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
        return self._n_steps, tuple(versions)


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
