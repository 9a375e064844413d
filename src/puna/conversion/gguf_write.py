"""Write a GGUF that llama.cpp runs and chats with, through the gguf package: F32, F16, BF16 or Q8_0.

As llama.cpp expects, norms stay in float32, the rows of wq and wk are interleaved, and a matrix whose rows are no
whole blocks of Q8_0 is written in F16.
"""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor

from puna.conversion.folder_vocabulary import folder_vocabulary
from puna.conversion.gguf_config import ARCHITECTURE, add_config
from puna.conversion.gguf_file import read_gguf
from puna.conversion.gguf_names import gguf_names
from puna.conversion.gguf_rope import ROPE_FREQS, divisors
from puna.conversion.gguf_vocabulary import add_vocabulary
from puna.conversion.publish import not_as_written
from puna.conversion.rotary_rows import interleave, is_rotated
from puna.conversion.source import TensorSource, cast
from puna.core.errors import CheckpointError
from puna.model.rope_scaling import Llama3Scaling

__all__ = ["GGUFFormat", "verify_gguf", "write_gguf"]

GGUFFormat = Literal["f32", "f16", "bf16", "q8_0"]

_KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_DTYPES = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
    GGMLQuantizationType.Q8_0: torch.float32,
}
Q8_0_LARGEST = 65_504.0 * 127
"""A block's scale is its largest value / 127 in float16."""


class _Planned(NamedTuple):
    """One tensor of the file."""

    name: str
    """Hugging Face's."""
    kind: GGMLQuantizationType
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(quant_shape_to_byte_shape(self.shape, self.kind))


def write_gguf(source: TensorSource, path: Path, *, dtype: GGUFFormat, name: str | None = None) -> None:
    """Write the model to one GGUF file; one tensor is held at a time.

    Without a tokenizer in the source, llama.cpp loads the file but cannot turn text into tokens.

    Args:
        dtype: Format of the matrices.
        name: general.name, which programs show; the file's own when None.
    Raises:
        CheckpointError: a weight is not finite or out of the format's range, or llama.cpp could not follow the
            tokenizer.
        ConfigError: llama.cpp lacks the model's rotary scaling.
    """
    writer = GGUFWriter(path, ARCHITECTURE)
    try:
        writer.add_type("model")
        writer.add_name(name or path.stem)
        writer.add_file_type(_KINDS[dtype][1])
        writer.add_quantization_version(2)
        add_config(writer, source.config)
        _add_tokenizer(writer, source)
        plan = _plan(source, dtype)
        for gguf_name, planned in plan.items():
            writer.add_tensor_info(
                gguf_name, planned.shape, np.dtype(np.float32), planned.n_bytes, planned.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for planned in plan.values():
            writer.write_tensor_data(_encoded(source, planned))
    finally:
        writer.close()


def verify_gguf(source: TensorSource, path: Path, *, dtype: GGUFFormat) -> None:
    """Read the file back and compare every tensor's bytes with what was meant.

    Raises:
        CheckpointError: the file cannot be read.
        StorageError: a tensor came back with other bytes.
    """
    stored = read_gguf(path).tensors
    for gguf_name, planned in _plan(source, dtype).items():
        got = stored[gguf_name]
        if got.tensor_type != planned.kind or not np.array_equal(
            got.data.reshape(-1).view(np.uint8), _encoded(source, planned)
        ):
            raise not_as_written(path, planned.name)


def _add_tokenizer(writer: GGUFWriter, source: TensorSource) -> None:
    if source.tokenizer is not None:
        with TemporaryDirectory() as folder:
            source.tokenizer.save(Path(folder), max_seq_len=source.config.max_seq_len)
            add_vocabulary(writer, folder_vocabulary(Path(folder), n_tokens=source.config.vocab_size))


def _plan(source: TensorSource, dtype: GGUFFormat) -> dict[str, _Planned]:
    """What the file holds, by llama.cpp's name, in the source's order."""
    names = gguf_names(source.config)
    wanted = {names[name]: (name, info.shape) for name, info in source.tensors.items()}
    if isinstance(source.config.rope_scaling, Llama3Scaling):
        wanted[ROPE_FREQS] = (ROPE_FREQS, (source.config.head_dim // 2,))
    return {
        gguf_name: _Planned(name, _kind(shape, dtype), shape) for gguf_name, (name, shape) in wanted.items()
    }


def _kind(shape: tuple[int, ...], dtype: GGUFFormat) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    kind = _KINDS[dtype][0]
    block = GGML_QUANT_SIZES[kind][0]
    return GGMLQuantizationType.F16 if shape[-1] % block else kind


def _encoded(source: TensorSource, planned: _Planned) -> np.ndarray:
    """The bytes of one tensor."""
    values = cast(_values(source, planned.name), planned.name, dtype=_DTYPES[planned.kind], where=source.path)
    if planned.kind is not GGMLQuantizationType.Q8_0:
        return values.contiguous().view(-1).view(torch.uint8).numpy()
    largest = values.abs().max().item()
    if largest > Q8_0_LARGEST:
        raise CheckpointError(
            where=str(source.path),
            expected=f"{planned.name} within the range of q8_0, {Q8_0_LARGEST:.4g}",
            got=f"{largest:.4g}",
            fix="Write f32 or bf16 instead.",
        )
    with np.errstate(all="ignore"):  # a block of numbers near zero has the scale 0
        return quantize(values.numpy(), planned.kind).reshape(-1)


def _values(source: TensorSource, name: str) -> Tensor:
    """The numbers of one tensor, in llama.cpp's order of rows."""
    scaling = source.config.rope_scaling
    if name == ROPE_FREQS and isinstance(scaling, Llama3Scaling):
        return divisors(scaling, source.config)
    tensor = source.read(name)
    return interleave(tensor, head_dim=source.config.head_dim) if is_rotated(name) else tensor
