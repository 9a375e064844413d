"""torch's .pth files: a zip archive with a pickled index and one record a tensor, read a few rows at a time.

Only the form of torch 1.6 and later is read. Records must be stored as they are: a compressed one could unfold to
any size. The pickle is interpreted by pickled_index.py; torch.load is never called.
"""

import io
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from puna.conversion.pickled_index import MAX_PICKLE_BYTES, StoredTensor, read_index
from puna.conversion.stream import TensorInfo
from puna.model.hf_config import broken

__all__ = ["PthFile"]

MAX_DIRECTORY_BYTES = 16 * 2**20
"""Of the archive's table of contents; a 70B shard's has 100 kB."""
LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class _Place(NamedTuple):
    """A record's bytes in the file."""

    offset: int
    n_bytes: int


class PthFile:
    """An open .pth; made by opening it, which checks every size against the file."""

    def __init__(self, path: Path) -> None:
        """Read the index.

        Raises:
            CheckpointError: the file is missing, old, truncated, compressed, or holds more than tensors.
        """
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise broken(path, "a .pth file", error.strerror or str(error)) from None
        try:
            self._tensors = self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Shape and format of every tensor."""
        return {name: TensorInfo(stored.shape, stored.dtype) for name, (stored, _) in self._tensors.items()}

    def rows(self, name: str, first: int, n_rows: int) -> Tensor:
        """A copy of some rows of a tensor."""
        stored, start = self._tensors[name]
        width = math.prod(stored.shape[1:])
        block = torch.empty(n_rows, *stored.shape[1:], dtype=stored.dtype)
        buffer = memoryview(block.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        offset = start + first * width * stored.dtype.itemsize
        while buffer:
            count = os.preadv(self._file.fileno(), [buffer], offset)
            if count == 0:
                raise broken(self.path, f"all of {name}", "the end of the file")
            buffer, offset = buffer[count:], offset + count
        return block

    def _read(self) -> dict[str, tuple[StoredTensor, int]]:
        records = self._records()
        pickles = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or records[pickles[0]].n_bytes > MAX_PICKLE_BYTES:
            raise broken(
                self.path, f"one data.pkl of at most {MAX_PICKLE_BYTES:,} bytes", f"{len(pickles)} of them"
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = self._content(records[f"{folder}byteorder"]) if f"{folder}byteorder" in records else b"little"
        if order != b"little":
            raise broken(self.path, "byteorder little", repr(order[:20]))
        tensors = {}
        for name, stored in read_index(self._content(records[pickles[0]]), where=self.path).items():
            place = records.get(f"{folder}data/{stored.record}")
            n_bytes = stored.record_size * stored.dtype.itemsize
            if place is None or place.n_bytes != n_bytes:
                got = f"{place.n_bytes:,}" if place else "no such record"
                raise broken(self.path, f"{n_bytes:,} bytes for {name[:80]}, as the index says", got)
            tensors[name] = (stored, place.offset + stored.offset * stored.dtype.itemsize)
        return tensors

    def _records(self) -> dict[str, _Place]:
        """Every record of the archive, each stored as it is and inside the file."""
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(4)
        if start[:2] == b"\x80\x02":
            raise broken(
                self.path, "a .pth file of torch 1.6 or later",
                "the older form; load it with torch.load(weights_only=True) and save it again",
            )  # fmt: skip
        try:
            with zipfile.ZipFile(_Bounded(self._file)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise broken(self.path, "a whole .pth file", str(error)) from None
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise broken(self.path, "records that are not compressed", f"{entry.filename[:80]}, which is")
        if sum(entry.file_size for entry in entries) > size:
            raise broken(
                self.path, f"records of at most {size:,} bytes, the file's size", "more, overlapping"
            )
        return {entry.filename: self._place(entry, size) for entry in entries}

    def _place(self, entry: zipfile.ZipInfo, size: int) -> _Place:
        start = max(0, min(entry.header_offset, size))
        header = os.pread(self._file.fileno(), LOCAL_HEADER.size, start)
        if (
            start != entry.header_offset
            or len(header) < LOCAL_HEADER.size
            or not header.startswith(b"PK\x03\x04")
        ):
            raise broken(self.path, f"the record {entry.filename[:80]}", "none at its place")
        *_, n_name, n_extra = LOCAL_HEADER.unpack(header)
        offset = entry.header_offset + LOCAL_HEADER.size + n_name + n_extra
        if offset + entry.file_size > size:
            raise broken(self.path, f"all of {entry.filename[:80]}", "the end of the file")
        return _Place(offset, entry.file_size)

    def _content(self, place: _Place) -> bytes:
        return os.pread(self._file.fileno(), min(place.n_bytes, MAX_PICKLE_BYTES), place.offset)


class _Bounded(io.RawIOBase):
    """A file that refuses to be read in large pieces: zipfile reads a table of contents of any size at once."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(
            min(size, MAX_DIRECTORY_BYTES + 1) if size >= 0 else MAX_DIRECTORY_BYTES + 1
        )
        if content is not None and len(content) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("a table of contents larger than any model's")
        return content or b""
