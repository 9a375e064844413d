"""A checkpoint as a stream of tensors: what every reader of a format offers and every writer takes.

Names, shapes and the rotary layout (half-split, model/rope.py) are those of Hugging Face's LlamaForCausalLM, so
that a format is described once, against this form. Nothing here reads a file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig
from puna.model.hf_config import broken
from puna.tokenizer.tokenizer import Tokenizer

__all__ = [
    "BLOCK_BYTES",
    "STORED_DTYPES",
    "TensorInfo",
    "TensorSource",
    "cast",
    "check_tensors",
    "row_blocks",
    "shapes",
]

STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The number formats a checkpoint may hold; a quantized one is delivered as one of these."""

BLOCK_BYTES = 2 * 2**20
"""Rows are converted about this many bytes at a time, so a copy never costs a whole tensor."""


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
    """An open checkpoint of any format; a context manager that closes its files.

    Opening checks every name, shape and size against the configuration and the file before anything is allocated,
    and raises CheckpointError.
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
        """One tensor, bit for bit as stored (a quantized one as its exact values); allocates that tensor only."""

    @abstractmethod
    def close(self) -> None:
        """Release files."""

    def __enter__(self) -> "TensorSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, embedding first and output matrix last, as a forward pass meets them."""
    dim, hidden = config.dim, config.hidden_dim
    kv = config.n_kv_heads * config.head_dim
    layer = {
        "input_layernorm": (dim,),
        "self_attn.q_proj": (config.n_heads * config.head_dim, dim),
        "self_attn.k_proj": (kv, dim),
        "self_attn.v_proj": (kv, dim),
        "self_attn.o_proj": (dim, config.n_heads * config.head_dim),
        "post_attention_layernorm": (dim,),
        "mlp.gate_proj": (hidden, dim),
        "mlp.up_proj": (hidden, dim),
        "mlp.down_proj": (dim, hidden),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, dim)}
    for number in range(config.n_layers):
        found |= {f"model.layers.{number}.{part}.weight": shape for part, shape in layer.items()}
    found["model.norm.weight"] = (dim,)
    if not config.tie_embeddings:
        found["lm_head.weight"] = (config.vocab_size, dim)
    return found


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
        raise broken(where, "the tensors of a Llama", f"also {unknown[0]} ({len(unknown)} unknown)")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise broken(
                where, f"{name} of shape {shape}, as the configuration says", f"shape {found[name].shape}"
            )
        if found[name].dtype not in STORED_DTYPES:
            raise broken(where, f"{name} in float32, bfloat16 or float16", str(found[name].dtype))
    return {name: found[name] for name in wanted}


def row_blocks(tensor: Tensor, *, multiple: int = 1) -> Iterator[tuple[int, Tensor]]:
    """First row and rows of successive views of about BLOCK_BYTES.

    Args:
        multiple: Rows that must stay together, such as those of one head.
    """
    n_rows = tensor.shape[0]
    row_bytes = max(1, tensor.nbytes // max(1, n_rows))
    step = max(1, BLOCK_BYTES // (row_bytes * multiple)) * multiple
    for first in range(0, n_rows, step):
        yield first, tensor[first : first + step]


def cast(tensor: Tensor, name: str, *, dtype: torch.dtype | None, where: Path) -> Tensor:
    """The tensor in that format, finite before and after; None keeps its own, without a copy.

    Raises:
        CheckpointError: it holds NaN or infinity, or a value beyond the range of the format.
    """
    if not tensor.isfinite().all():
        raise broken(where, f"finite numbers in {name}", "NaN or infinity")
    if dtype is None or dtype == tensor.dtype:
        return tensor
    converted = tensor.to(dtype)
    if not converted.isfinite().all():
        largest = tensor.abs().max().item()
        raise broken(
            where, f"{name} within the range of {str(dtype).removeprefix('torch.')}", f"{largest:.4g}"
        )
    return converted
