"""The header of a GGUF file (llama.cpp's format): its settings and its table of tensors, nothing else read.

Source: the GGUF specification in ggml's docs, versions 2 and 3, little-endian. A file may come from a stranger: every
count and length is compared with the bytes that are left before anything of that size is made, and every tensor must
lie inside the file without overlapping another. The gguf package maps the whole file and trusts its counts.
"""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from puna.core.errors import CheckpointError
from puna.model.hf_config import broken

__all__ = ["Header", "StoredTensor", "damaged", "read_header"]

MAX_DIMENSIONS = 4
MAX_STRINGS = 4_000_000
"""Strings in one array; a vocabulary has a few hundred thousand at most."""

_SCALARS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "<u1",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
}


class StoredTensor(NamedTuple):
    """One row of the table of tensors."""

    shape: tuple[int, ...]
    """Outermost first, as in torch; the file has the opposite order."""
    kind: GGMLQuantizationType
    start: int
    """Byte of the file where its data begins."""
    n_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; a row holds whole quantization blocks."""
        return self.n_bytes // math.prod(self.shape[:-1])


class Header(NamedTuple):
    """What a GGUF file says of itself."""

    metadata: Mapping[str, Any]
    """int, float, bool, str, list of str, or a numpy array, by key."""
    tensors: Mapping[str, StoredTensor]


def damaged(where: Path, expected: str, got: str) -> CheckpointError:
    """The error of a GGUF file that is cut, altered, or of a kind we cannot read."""
    fix = "Download the file again, or choose another one."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)


def read_header(path: Path) -> Header:
    """Settings and tensors of a GGUF file.

    Raises:
        CheckpointError: the file is missing, no GGUF, truncated, or inconsistent with its own size.
    """
    try:
        with path.open("rb") as file:
            return _Parser(file, path).header()
    except OSError as error:
        raise broken(path, "a GGUF file", error.strerror or str(error)) from None


class _Parser:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._size = os.fstat(file.fileno()).st_size

    def header(self) -> Header:
        n_tensors, n_settings = self._start()
        metadata: dict[str, Any] = {}
        for _ in range(n_settings):
            key = self._string("the name of a setting")
            if key in metadata:
                raise damaged(self._path, "each setting once", f"{key} twice")
            metadata[key] = self._value(key)
        rows = [self._row() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 2**20 or alignment & (alignment - 1):
            raise damaged(self._path, "general.alignment a power of two", repr(alignment))
        data_start = -(-self._file.tell() // alignment) * alignment
        return Header(metadata, self._tensors(rows, data_start, alignment))

    def _start(self) -> tuple[int, int]:
        """Counts of tensors and settings."""
        magic = self._file.read(4)
        if magic != b"GGUF":
            raise damaged(self._path, "a GGUF file, which begins with the letters GGUF", repr(magic))
        version = self._number("<u4", "the version")
        if version not in (2, 3):
            kind = "big-endian, which is not read" if version in (2 << 24, 3 << 24) else f"version {version}"
            raise damaged(self._path, "GGUF version 2 or 3, little-endian", kind)
        n_tensors = self._count("tensors", least_bytes=8 + 4 + 8 + 4 + 8)
        n_settings = self._count("settings", least_bytes=8 + 4 + 1)
        return n_tensors, n_settings

    def _take(self, n_bytes: int, what: str) -> bytes:
        left = self._size - self._file.tell()
        if n_bytes > left:
            raise damaged(self._path, f"{n_bytes} bytes for {what}", f"{left} bytes before the file's end")
        return self._file.read(n_bytes)

    def _number(self, dtype: str, what: str) -> Any:
        kind = np.dtype(dtype)
        return np.frombuffer(self._take(kind.itemsize, what), kind)[0].item()

    def _count(self, what: str, *, least_bytes: int) -> int:
        """A count, once the file is long enough to hold so many."""
        count = self._number("<u8", f"the number of {what}")
        left = self._size - self._file.tell()
        if count * least_bytes > left:
            raise damaged(self._path, f"{count} {what}", f"{left} bytes before the file's end")
        return count

    def _string(self, what: str) -> str:
        (length,) = struct.unpack("<Q", self._take(8, what))
        raw = self._take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(self._path, f"UTF-8 in {what}", str(error)) from None

    def _value_type(self, key: str) -> GGUFValueType:
        number = self._number("<u4", f"the type of {key}")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise damaged(self._path, f"a known type of {key}", f"type {number}") from None

    def _value(self, key: str) -> Any:
        kind = self._value_type(key)
        if kind is GGUFValueType.STRING:
            return self._string(key)
        if kind is not GGUFValueType.ARRAY:
            number = self._number(_SCALARS[kind], key)
            return self._boolean(number, key) if kind is GGUFValueType.BOOL else number
        kind = self._value_type(key)
        if kind is GGUFValueType.ARRAY:
            raise damaged(self._path, f"a flat array in {key}", "an array of arrays")
        if kind is GGUFValueType.STRING:
            count = self._count(f"strings in {key}", least_bytes=8)
            if count > MAX_STRINGS:
                raise damaged(self._path, f"at most {MAX_STRINGS} strings in {key}", str(count))
            return [self._string(key) for _ in range(count)]
        dtype = np.dtype(_SCALARS[kind])
        count = self._count(f"numbers in {key}", least_bytes=dtype.itemsize)
        return np.frombuffer(self._take(count * dtype.itemsize, key), dtype)

    def _boolean(self, number: int, key: str) -> bool:
        if number not in (0, 1):
            raise damaged(self._path, f"true or false in {key}", str(number))
        return bool(number)

    def _row(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        """Name, shape, kind and offset of one tensor."""
        name = self._string("the name of a tensor")
        n_dimensions = self._number("<u4", name)
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise damaged(self._path, f"1 to {MAX_DIMENSIONS} dimensions of {name}", str(n_dimensions))
        sizes = struct.unpack(f"<{n_dimensions}Q", self._take(8 * n_dimensions, name))
        number = self._number("<u4", name)
        offset = self._number("<u8", name)
        try:
            return name, sizes[::-1], GGMLQuantizationType(number), offset
        except ValueError:
            raise damaged(self._path, f"a known number format of {name}", f"format {number}") from None

    def _tensors(
        self,
        rows: list[tuple[str, tuple[int, ...], GGMLQuantizationType, int]],
        data_start: int,
        alignment: int,
    ) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        for name, shape, kind, offset in rows:
            if name in found:
                raise damaged(self._path, "each tensor once", f"{name} twice")
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if min(shape) < 1 or shape[-1] % block:
                raise damaged(
                    self._path, f"{name} in whole blocks of {block} ({kind.name})", f"shape {shape}"
                )
            if offset % alignment:
                raise damaged(self._path, f"{name} at a multiple of {alignment} bytes", f"offset {offset}")
            n_bytes = math.prod(shape) // block * block_bytes
            found[name] = StoredTensor(shape, kind, data_start + offset, n_bytes)
        end, previous = data_start, "the header"
        for name, tensor in sorted(found.items(), key=lambda item: item[1].start):
            if tensor.start < end:
                raise damaged(self._path, f"{name} after {previous}", "both in the same bytes")
            end, previous = tensor.start + tensor.n_bytes, name
            if end > self._size:
                raise damaged(self._path, f"{end} bytes, the end of {name}", f"a file of {self._size}")
        return found
