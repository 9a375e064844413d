"""A torch .pth file laid out before its tensors are known: index first, then each tensor's bytes at a planned place.

torch.save needs every tensor of a file at once; here they arrive one by one, a few rows at a time. The result loads
with torch.load(weights_only=True), mapped or not. Differs from torch's own files in the name of the archive's folder
and in having no serialization id.
"""

import io
import math
import pickle
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch._utils import _rebuild_tensor_v2

from puna.conversion.stream import BLOCK_BYTES, TensorInfo

__all__ = ["PthPlan"]

FOLDER = "consolidated"
ALIGNMENT = 64
"""Of every record, as torch's own writer aligns them."""
LONG = 0xFFFFFFFF
"""In a 32-bit field of a zip archive: the value stands in the 64-bit extra field."""
ZIP64_VERSION = 45
UTF8_NAMES = 0x800
FIRST_DAY = 0x21
"""1 January 1980, the start of a zip archive's calendar."""

_STORAGES = {
    torch.float32: torch.FloatStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.float16: torch.HalfStorage,
}


class _Storage(NamedTuple):
    """Stands for a tensor's memory in the pickle."""

    key: str
    dtype: torch.dtype
    size: int


class _Dense(NamedTuple):
    """Stands for a tensor in the pickle."""

    storage: _Storage
    shape: tuple[int, ...]


class _IndexPickler(pickle.Pickler):
    """Writes the stand-ins as torch.save writes tensors."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return ("storage", _STORAGES[obj.dtype], obj.key, "cpu", obj.size)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, _Dense):
            return NotImplemented
        strides = tuple(math.prod(obj.shape[axis + 1 :]) for axis in range(len(obj.shape)))
        return _rebuild_tensor_v2, (obj.storage, 0, obj.shape, strides, False, OrderedDict())


class _Record(NamedTuple):
    """One entry of the archive; content is None for a tensor, which comes later."""

    name: bytes
    header_offset: int
    offset: int
    n_bytes: int
    content: bytes | None


class PthPlan:
    """The layout of one file."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        """Plan a state dictionary of these tensors, in this order."""
        keys = {name: str(number) for number, name in enumerate(tensors)}
        self._records: list[_Record] = []
        self._end = 0
        self._add("data.pkl", _index(tensors, keys))
        self._add("byteorder", b"little")
        self.offsets: dict[str, int] = {}
        """First byte of each tensor in the file."""
        for name, info in tensors.items():
            self.offsets[name] = self._add(f"data/{keys[name]}", None, info.n_bytes)
        self._add("version", b"3\n")
        self.n_bytes = self._end + len(self._directory([0] * len(self._records)))

    def begin(self, path: Path) -> None:
        """Write the file without its tensors and checksums."""
        with path.open("wb") as file:
            self._write_headers(file, [0] * len(self._records))
            for record in self._records:
                file.seek(record.offset)
                file.write(record.content or b"")
            file.truncate(self.n_bytes)

    def finish(self, path: Path) -> None:
        """Fill in the checksum of every record, from the file as it is."""
        with path.open("r+b") as file:
            self._write_headers(file, [_checksum(file, record) for record in self._records])

    def _add(self, name: str, content: bytes | None, n_bytes: int = 0) -> int:
        """Append a record and return where its bytes start, a multiple of ALIGNMENT."""
        full = f"{FOLDER}/{name}".encode()
        n_bytes = n_bytes if content is None else len(content)
        header = 30 + len(full) + len(_long_sizes(n_bytes))
        offset = self._end + header + 4
        offset += -offset % ALIGNMENT
        self._records.append(_Record(full, self._end, offset, n_bytes, content))
        self._end = offset + n_bytes
        return offset

    def _write_headers(self, file: BinaryIO, checksums: list[int]) -> None:
        for record, checksum in zip(self._records, checksums, strict=True):
            file.seek(record.header_offset)
            file.write(_local_header(record, checksum))
        file.seek(self._end)
        file.write(self._directory(checksums))

    def _directory(self, checksums: list[int]) -> bytes:
        """The table of contents at the end, in the 64-bit form, which every reader of such sizes knows."""
        entries = b"".join(_central_header(r, c) for r, c in zip(self._records, checksums, strict=True))
        count, end = len(self._records), self._end + len(entries)
        long_end = struct.pack(
            "<4sQ2H2I4Q",
            b"PK\x06\x06",
            44,
            ZIP64_VERSION,
            ZIP64_VERSION,
            0,
            0,
            count,
            count,
            len(entries),
            self._end,
        )
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        short_end = struct.pack(
            "<4s4H2IH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF),
            min(len(entries), LONG), min(self._end, LONG), 0,
        )  # fmt: skip
        return entries + long_end + locator + short_end


def _index(tensors: Mapping[str, TensorInfo], keys: Mapping[str, str]) -> bytes:
    entries = {
        name: _Dense(_Storage(keys[name], info.dtype, math.prod(info.shape)), info.shape)
        for name, info in tensors.items()
    }
    content = io.BytesIO()
    _IndexPickler(content, protocol=2).dump(entries)
    return content.getvalue()


def _checksum(file: BinaryIO, record: _Record) -> int:
    file.seek(record.offset)
    value, left = 0, record.n_bytes
    while left:
        block = file.read(min(left, BLOCK_BYTES))
        value = zlib.crc32(block, value)
        left -= len(block)
    return value


def _local_header(record: _Record, checksum: int) -> bytes:
    """The header before a record, padded so that the record is aligned."""
    extra = _long_sizes(record.n_bytes)
    n_padding = record.offset - record.header_offset - 30 - len(record.name) - len(extra) - 4
    extra += struct.pack("<2sH", b"FB", n_padding) + b"Z" * n_padding
    size = LONG if record.n_bytes >= LONG else record.n_bytes
    fixed = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", ZIP64_VERSION, UTF8_NAMES, 0, 0, FIRST_DAY, checksum, size, size,
        len(record.name), len(extra),
    )  # fmt: skip
    return fixed + record.name + extra


def _central_header(record: _Record, checksum: int) -> bytes:
    is_long, is_far = record.n_bytes >= LONG, record.header_offset >= LONG
    values = [record.n_bytes] * 2 * is_long + [record.header_offset] * is_far
    extra = struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""
    size = LONG if is_long else record.n_bytes
    fixed = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", ZIP64_VERSION, ZIP64_VERSION, UTF8_NAMES, 0, 0, FIRST_DAY, checksum, size, size,
        len(record.name), len(extra), 0, 0, 0, 0, LONG if is_far else record.header_offset,
    )  # fmt: skip
    return fixed + record.name + extra


def _long_sizes(n_bytes: int) -> bytes:
    """The extra field of a record of 4 GiB or more."""
    return struct.pack("<2H2Q", 1, 16, n_bytes, n_bytes) if n_bytes >= LONG else b""
