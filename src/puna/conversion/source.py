"""An open checkpoint: what every reader of a format offers and every writer takes.

Names, shapes and the rotary layout (half-split, model/rope.py) are those of Hugging Face's LlamaForCausalLM, so
that a format is described once, against this form. Nothing here reads a file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from puna.model.checkpoint import hf_name
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig
from puna.model.hf_config import broken
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["PreparedSource", "TensorInfo", "TensorSource", "cast", "check_tensors", "shapes"]

STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The number formats a checkpoint may hold; a quantized one is delivered as one of these."""


class TensorInfo(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """As `read` will deliver it."""

    @property
    def n_bytes(self) -> int:
        """Size once read."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(ABC):
    """An open checkpoint of any format.

    Opening checks every name and shape against the configuration and the file, and raises CheckpointError.
    """

    path: Path
    """What was opened, for messages."""
    config: ModelConfig
    tensors: Mapping[str, TensorInfo]
    """Every tensor of the model by its Hugging Face name, in the order of `shapes`; no other."""
    tokenizer: Tokenizer | None
    """None when none came with the weights."""
    generation: GenerationConfig | None = None
    """Special tokens and sampling, where the format keeps them; else they follow from the tokenizer."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One tensor, bit for bit as stored (a quantized one as its exact values)."""


class PreparedSource(TensorSource):
    """Another checkpoint as it will be written: its tensors finite and in the wanted number format."""

    def __init__(
        self,
        source: TensorSource,
        *,
        dtype: torch.dtype | None = None,
        on_read: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare nothing yet.

        Args:
            dtype: None keeps each tensor's own.
            on_read: Called after each tensor, to follow the progress.
        """
        self.path, self.config = source.path, source.config
        self.tokenizer, self.generation = source.tokenizer, source.generation
        self.tensors = {
            name: TensorInfo(info.shape, dtype or info.dtype) for name, info in source.tensors.items()
        }
        self._source = source
        self._on_read = on_read

    def read(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            CheckpointError: it holds NaN or infinity, or a value beyond the range of the format.
        """
        tensor = cast(self._source.read(name), name, dtype=self.tensors[name].dtype, where=self.path)
        self._on_read()
        return tensor


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, embedding first and output matrix last."""
    with torch.device("meta"):
        model = Transformer(config)
    return {hf_name(name): tuple(weight.shape) for name, weight in model.named_parameters()}


def check_tensors(
    config: ModelConfig, found: Mapping[str, TensorInfo], *, where: Path
) -> dict[str, TensorInfo]:
    """The tensors in order, when they are exactly those the configuration asks for.

    Raises:
        CheckpointError: one is missing, of another shape, of no floating-point format, or unknown.
    """
    wanted = shapes(config)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise broken(where, f"{len(wanted)} tensors", f"no {missing[0]} ({len(missing)} missing)")
    unknown = sorted(found.keys() - wanted.keys())
    if unknown:
        raise broken(where, "the tensors of a Llama", f"also {unknown[0]:.80} ({len(unknown)} unknown)")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise broken(
                where, f"{name} of shape {shape}, as the configuration says", f"shape {found[name].shape}"
            )
        if found[name].dtype not in STORED_DTYPES:
            raise broken(where, f"{name} in float32, bfloat16 or float16", str(found[name].dtype))
    return {name: found[name] for name in wanted}


def cast(tensor: Tensor, name: str, *, dtype: torch.dtype, where: Path) -> Tensor:
    """The tensor in that format, finite before and after; its own format costs no copy.

    Raises:
        CheckpointError: it holds NaN or infinity, or a value beyond the range of the format.
    """
    if not _is_finite(tensor):
        raise broken(where, f"finite numbers in {name}", "NaN or infinity")
    converted = tensor.to(dtype)
    if not _is_finite(converted):
        largest = tensor.abs().max().item()
        raise broken(
            where, f"{name} within the range of {str(dtype).removeprefix('torch.')}", f"{largest:.4g}"
        )
    return converted


def _is_finite(tensor: Tensor) -> bool:
    """By the extremes, which NaN spreads to, so that no tensor is made for the answer."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())
