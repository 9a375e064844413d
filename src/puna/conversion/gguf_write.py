"""Write a GGUF that llama.cpp runs and chats with: F32, F16, BF16 or Q8_0, one tensor at a time.

As llama.cpp expects, norms stay in float32, the rows of wq and wk are interleaved (gguf_layout.py), and a matrix whose
rows are no whole blocks of Q8_0 is written in F16. The file is built beside its destination: an interrupted run goes
on where it stopped, and the name is given only after everything was read back.
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal, NamedTuple, get_args

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, LlamaFileType
from gguf.quants import quantize
from torch import Tensor

from puna.conversion.folder_vocabulary import folder_vocabulary
from puna.conversion.gguf_config import ARCHITECTURE, add_config
from puna.conversion.gguf_header import read_header
from puna.conversion.gguf_layout import gguf_name, interleaved_rows, n_rotary_heads
from puna.conversion.gguf_rope import ROPE_FREQS, divisors
from puna.conversion.gguf_vocabulary import add_vocabulary
from puna.conversion.stream import TensorSource, cast, row_blocks
from puna.core.errors import CheckpointError, ConfigError
from puna.core.storage import storage_errors, sync
from puna.model.rope_scaling import Llama3Scaling
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["GGUF_FORMATS", "GGUFFormat", "write_gguf"]

GGUFFormat = Literal["f32", "f16", "bf16", "q8_0"]
GGUF_FORMATS: tuple[str, ...] = get_args(GGUFFormat)

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
    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    n_bytes: int
    start: int


def write_gguf(
    source: TensorSource,
    path: Path,
    *,
    dtype: GGUFFormat,
    tokenizer: Tokenizer | Path | None = None,
    name: str | None = None,
) -> None:
    """Write the model to one GGUF file, resuming an interrupted attempt, and read it back.

    Args:
        dtype: Format of the matrices.
        tokenizer: A Hugging Face folder's, or the folder; None takes the source's. Without any, llama.cpp loads
            the file but cannot turn text into tokens.
        name: general.name, which programs show; the file's own when None.
    Raises:
        ConfigError: the file exists.
        CheckpointError: a weight is not finite or out of the format's range, or llama.cpp could not follow the
            tokenizer.
        StorageError: the disk is full.
    """
    if path.exists():
        raise ConfigError(
            where=str(path),
            expected="a file that does not exist yet",
            got="an existing one",
            fix="Choose another name, or delete it first.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(path):
        header = _header(source, dtype, tokenizer or source.tokenizer, name=name or path.stem)
        plan = _plan(source, dtype, start=len(header))
        partial = path.with_name(f".{path.name}.partial")
        checksums = _write(source, partial, header, plan)
        sync(partial)
        _verify(source, partial, plan, checksums)
        partial.replace(path)
        sync(path.parent)


def _kind(shape: tuple[int, ...], dtype: GGUFFormat) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    kind = _KINDS[dtype][0]
    block = GGML_QUANT_SIZES[kind][0]
    return GGMLQuantizationType.F16 if shape[-1] % block else kind


def _plan(source: TensorSource, dtype: GGUFFormat, *, start: int) -> list[_Planned]:
    """Where each tensor goes, in the source's order."""
    plan = []
    wanted = {name: info.shape for name, info in source.tensors.items()}
    if isinstance(source.config.rope_scaling, Llama3Scaling):
        wanted[ROPE_FREQS] = (source.config.head_dim // 2,)
    for name, shape in wanted.items():
        kind = _kind(shape, dtype)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        n_bytes = math.prod(shape) // block * block_bytes
        plan.append(_Planned(name, kind, shape, n_bytes, start))
        start += n_bytes + _padding(n_bytes)
    return plan


def _padding(n_bytes: int) -> int:
    return -n_bytes % GGUF_DEFAULT_ALIGNMENT


def _header(
    source: TensorSource, dtype: GGUFFormat, tokenizer: Tokenizer | Path | None, *, name: str
) -> bytes:
    """Everything before the first tensor's data."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "header.gguf"
        writer = GGUFWriter(file, ARCHITECTURE)
        try:
            writer.add_type("model")
            writer.add_name(name)
            writer.add_file_type(_KINDS[dtype][1])
            writer.add_quantization_version(2)
            add_config(writer, source.config)
            if tokenizer is not None:
                if isinstance(tokenizer, Tokenizer):
                    tokenizer.save(Path(folder), max_seq_len=source.config.max_seq_len)
                    tokenizer = Path(folder)
                add_vocabulary(writer, folder_vocabulary(tokenizer, n_tokens=source.config.vocab_size))
            for planned in _plan(source, dtype, start=0):
                writer.add_tensor_info(
                    gguf_name(planned.name),
                    planned.shape,
                    np.dtype(np.float32),
                    planned.n_bytes,
                    planned.kind,
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        header = file.read_bytes()
    return header + bytes(_padding(len(header)))


def _write(source: TensorSource, partial: Path, header: bytes, plan: list[_Planned]) -> dict[str, int]:
    """Write what is not there yet; the CRC-32 of each tensor written."""
    with partial.open("r+b" if partial.is_file() else "w+b") as file:
        have = file.seek(0, 2) if file.read(len(header)) == header else 0
        file.seek(0)
        if not have:
            file.truncate()
            file.write(header)
        checksums = {}
        for planned in plan:
            end = planned.start + planned.n_bytes + _padding(planned.n_bytes)
            if end <= have:
                continue
            file.seek(planned.start)
            file.truncate()
            checksums[planned.name] = _write_tensor(file, source, planned)
        file.truncate(plan[-1].start + plan[-1].n_bytes + _padding(plan[-1].n_bytes))
    return checksums


def _write_tensor(file: BinaryIO, source: TensorSource, planned: _Planned) -> int:
    checksum = 0
    for block in _encoded(source, planned):
        checksum = zlib.crc32(block, checksum)
        file.write(block)
    file.write(bytes(_padding(planned.n_bytes)))
    return checksum


def _encoded(source: TensorSource, planned: _Planned) -> Iterator[memoryview]:
    """The bytes of one tensor, a few rows at a time."""
    n_heads = n_rotary_heads(planned.name, source.config)
    head_dim = source.config.head_dim
    scaling = source.config.rope_scaling
    if planned.name == ROPE_FREQS and isinstance(scaling, Llama3Scaling):
        tensor = divisors(scaling, source.config)
    else:
        tensor = source.read(planned.name)
    for _, rows in row_blocks(tensor, multiple=head_dim if n_heads else 1):
        if n_heads:
            heads = rows.view(-1, head_dim, rows.shape[1])
            rows = heads[:, interleaved_rows(head_dim)].view(rows.shape)
        values = cast(rows, planned.name, dtype=_DTYPES[planned.kind], where=source.path)
        yield _bytes(values.contiguous(), planned, source.path).data


def _bytes(values: Tensor, planned: _Planned, where: Path) -> np.ndarray:
    if planned.kind is not GGMLQuantizationType.Q8_0:
        return values.view(-1).view(torch.uint8).numpy()
    largest = values.abs().max().item()
    if largest > Q8_0_LARGEST:
        raise CheckpointError(
            where=str(where),
            expected=f"{planned.name} within the range of q8_0, {Q8_0_LARGEST:.4g}",
            got=f"{largest:.4g}",
            fix="Write f32 or bf16 instead.",
        )
    with np.errstate(all="ignore"):  # a block of numbers near zero has the scale 0
        return quantize(values.numpy(), planned.kind).reshape(-1)


def _verify(source: TensorSource, partial: Path, plan: list[_Planned], checksums: dict[str, int]) -> None:
    """Compare the file with what was written, and with the source where an earlier attempt wrote it."""
    stored = read_header(partial).tensors
    with partial.open("rb") as file:
        for planned in plan:
            wanted = checksums.get(planned.name)
            if wanted is None:
                wanted = 0
                for block in _encoded(source, planned):
                    wanted = zlib.crc32(block, wanted)
            tensor = stored[gguf_name(planned.name)]
            file.seek(tensor.start)
            if tensor.n_bytes != planned.n_bytes or _checksum(file, tensor.n_bytes) != wanted:
                partial.unlink()
                raise CheckpointError(
                    where=str(partial),
                    expected=f"{planned.name} as it was written",
                    got="other bytes when read back",
                    fix="Run the command again: the file was removed and will be written anew.",
                )


def _checksum(file: BinaryIO, n_bytes: int) -> int:
    checksum = 0
    while n_bytes:
        block = file.read(min(n_bytes, 2**20))
        if not block:
            return -1
        checksum = zlib.crc32(block, checksum)
        n_bytes -= len(block)
    return checksum
