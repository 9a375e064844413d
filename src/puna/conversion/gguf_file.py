"""A GGUF file through the gguf package's reader, with a guard for untrusted files.

The package's reader maps the file and believes every count in it. Here each of its reads must lie inside the file, and
their number is limited, so that no header costs more than a bounded time and memory.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGUFReader, ReaderTensor

from puna.core.errors import CheckpointError

__all__ = ["GGUFFile", "damaged", "read_gguf", "shape_of"]

MAX_READS = 4_000_000
"""Of numbers and texts in one header, some 300 bytes each; 262,000 tokens with 514,000 merges take 2.1 million."""


class GGUFFile(NamedTuple):
    """What a file says of itself, and its tensors as views of the mapped file."""

    metadata: Mapping[str, Any]
    """int, float, bool, str, or a list of these, by key."""
    tensors: Mapping[str, ReaderTensor]


def damaged(where: Path, expected: str, got: str) -> CheckpointError:
    """The error of a GGUF file that is cut, altered, or of a kind we cannot read."""
    fix = "Download the file again, or choose another one."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)


def shape_of(tensor: ReaderTensor) -> tuple[int, ...]:
    """Outermost size first, as in torch; the file has the opposite order."""
    return tuple(int(size) for size in reversed(tensor.shape))


def read_gguf(path: Path) -> GGUFFile:
    """Open a GGUF file.

    Raises:
        CheckpointError: the file is missing, no GGUF, truncated, or inconsistent with its own size.
    """
    try:
        reader = _GuardedReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except OSError as error:
        raise damaged(path, "a GGUF file", error.strerror or str(error)) from None
    except (ArithmeticError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise damaged(path, "a whole GGUF file of version 2 or 3", got) from None
    if reader.byte_order != "I":
        raise damaged(path, "a little-endian GGUF file", "a big-endian one")
    _check_places(path, reader)
    return GGUFFile(metadata, {tensor.name: tensor for tensor in reader.tensors})


class _GuardedReader(GGUFReader):
    """The package's reader, which may not read beyond the file's end, nor without end."""

    _n_reads = 0

    def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        if not self._n_reads:
            # views of a memmap take twice the memory and three times the time of plain ones
            self.data = np.asarray(self.data)  # type: ignore[assignment]
        self._n_reads += 1
        if self._n_reads > MAX_READS:
            raise ValueError(f"more than {MAX_READS} entries in the header")
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"{end} bytes are promised, the file has {len(self.data)}")
        return super()._get(int(offset), dtype, count, override_order)


def _check_places(path: Path, reader: GGUFReader) -> None:
    """No two tensors share bytes: else a small file could become a large model."""
    end, previous = reader.data_offset, "the header"
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        if tensor.data_offset < end:
            raise damaged(path, f"{tensor.name} after {previous}", "both in the same bytes")
        end, previous = tensor.data_offset + tensor.n_bytes, tensor.name
