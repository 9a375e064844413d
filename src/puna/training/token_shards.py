"""The token shards pretraining reads: flat little-endian token streams and an index (format of our own)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import ValidationError
from torch import Tensor

from puna.core.config import Settings
from puna.core.errors import DataError

__all__ = ["ShardFile", "ShardIndex", "TokenStream", "read_index", "shard_dtype"]

INDEX_PATH = Path("shards") / "index.json"


class ShardFile(Settings):
    """One file of tokens in which every document is <s> ... </s>."""

    file: str
    """Name within the shards folder."""
    n_tokens: int
    """Tokens in the file, control tokens included."""


class ShardIndex(Settings):
    """What shards/index.json says of the files beside it."""

    dtype: Literal["uint16", "uint32"]
    """Width of a token, little-endian."""
    train: tuple[ShardFile, ...]
    """Read one after another as a single stream."""
    validation: dict[str, ShardFile]
    """Held-out tokens by source."""


def shard_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The narrowest width that holds every token id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def read_index(data: Path) -> ShardIndex:
    """Read the index of an artifact folder and check that every file has the length it states.

    Raises:
        DataError: the index or a file is missing, broken or of another length.
    """
    path = data / INDEX_PATH
    try:
        index = ShardIndex.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            where=str(path),
            expected="an index of token shards",
            got="no such file",
            fix="Give the folder that the tokenize stage wrote.",
        ) from None
    except ValidationError as error:
        raise DataError(
            where=str(path),
            expected="an index of token shards",
            got=str(error.errors()[0]["msg"]),
            fix="Run the tokenize stage again.",
        ) from None
    for shard in (*index.train, *index.validation.values()):
        _check_length(path.parent / shard.file, shard.n_tokens * np.dtype(index.dtype).itemsize)
    return index


def _check_length(path: Path, expected_bytes: int) -> None:
    found = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
    if found != f"{expected_bytes} bytes":
        raise DataError(
            where=str(path),
            expected=f"{expected_bytes} bytes",
            got=found,
            fix="The shard is missing or truncated: run the tokenize stage again.",
        )


class TokenStream:
    """Several shard files read as one long sequence, without loading them."""

    def __init__(self, data: Path, files: Sequence[ShardFile], dtype: Literal["uint16", "uint32"]) -> None:
        width = np.dtype(dtype).newbyteorder("<")
        folder = data / INDEX_PATH.parent
        self._names = [f.file for f in files if f.n_tokens]
        self._maps = [np.memmap(folder / f.file, dtype=width, mode="r") for f in files if f.n_tokens]
        self._starts = np.concatenate([[0], np.cumsum([len(m) for m in self._maps])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, n_tokens: int) -> Int64[Tensor, " seq"]:
        """Tokens start .. start + n_tokens, joined across files; fewer at the end of the stream."""
        parts = []
        position, end = start, min(start + n_tokens, len(self))
        while position < end:
            shard = int(np.searchsorted(self._starts, position, side="right")) - 1
            offset = position - int(self._starts[shard])
            part = self._maps[shard][offset : offset + end - position]
            parts.append(part)
            position += len(part)
        tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return torch.from_numpy(tokens.astype(np.int64))

    def locate(self, position: int) -> tuple[str, int]:
        """The file that a position of the stream lies in, and its place there, for messages."""
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._names[shard], position - int(self._starts[shard])

    def n_windows(self, seq_len: int) -> int:
        """Rows of seq_len + 1 tokens that overlap by one, so that every token is a target once."""
        return max(0, len(self) - 1) // seq_len

    def windows(self, indices: Sequence[int], seq_len: int) -> Int64[Tensor, "rows seq_plus_1"]:
        """The numbered rows of n_windows, in the order given."""
        return torch.stack([self.read(index * seq_len, seq_len + 1) for index in indices])
