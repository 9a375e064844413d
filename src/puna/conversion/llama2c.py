"""llama2.c's .bin checkpoints; read only.

Source: legacy_export (version 0: no magic number, a negative vocabulary for an untied output) and version1_export of
llama2.c's export.py. Both hold float32 in Meta's rotary layout. Version 2 holds 8-bit groups and is refused.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from puna.conversion.rotary_rows import is_rotated, separate
from puna.conversion.source import TensorInfo, TensorSource, shapes
from puna.model.checkpoint import meta_name
from puna.model.config import ModelConfig
from puna.model.hf_config import broken

__all__ = ["Llama2cSource", "is_llama2c"]

MAGIC = 0x616B3432
LEGACY = struct.Struct("<7i")
VERSIONED = struct.Struct("<Ii7iB")
VERSIONED_BYTES = 256
"""The header of version 1, padded."""
FLOAT_BYTES = 4

_LAYER_ORDER = {
    0: ["attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm",
        "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"],
    1: ["attention.wq", "attention.wk", "attention.wv", "attention.wo",
        "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"],
}  # fmt: skip
"""Each for all layers before the next; version 1 has the norms before."""


def is_llama2c(path: Path) -> bool:
    """Whether a file has a header of llama2.c: the magic number, or seven sizes that explain its length."""
    with path.open("rb") as file:
        start = file.read(VERSIONED.size)
    if len(start) < LEGACY.size:
        return False
    if int.from_bytes(start[:4], "little") == MAGIC:
        return True
    *sizes, vocab_size, _ = LEGACY.unpack_from(start)
    return all(0 < size < 2**20 for size in sizes) and 0 < abs(vocab_size) < 2**24


class Llama2cSource(TensorSource):
    """An open .bin file; its tokenizer, a file apart, is the caller's to name."""

    def __init__(self, path: Path) -> None:
        """Read the header and check that the file has exactly the bytes it promises.

        Raises:
            CheckpointError: the file is truncated, quantized, or no llama2.c checkpoint.
        """
        self.path = path
        self.tokenizer = None
        self.config, version, start = self._header()
        self._offsets, end = self._plan(version, start)
        size = path.stat().st_size
        if end != size:
            raise broken(path, f"a file of {end:,} bytes, as its header says", f"{size:,} bytes")
        self.tensors = {name: TensorInfo(shape, torch.float32) for name, shape in shapes(self.config).items()}

    def read(self, name: str) -> Tensor:
        """One tensor, in Hugging Face's row order."""
        shape = self.tensors[name].shape
        values = np.fromfile(self.path, "<f4", math.prod(shape), offset=self._offsets[name])
        if values.size < math.prod(shape):
            raise broken(self.path, f"all of {name}", "the end of the file")
        tensor = torch.from_numpy(values).view(shape)
        return separate(tensor, head_dim=self.config.head_dim) if is_rotated(name) else tensor

    def _header(self) -> tuple[ModelConfig, int, int]:
        """Configuration, version, and where the weights begin."""
        with self.path.open("rb") as file:
            start = file.read(VERSIONED.size)
        if len(start) < VERSIONED.size:
            raise broken(self.path, "a header", "the end of the file")
        if int.from_bytes(start[:4], "little") != MAGIC:
            sizes = LEGACY.unpack_from(start)
            return self._config(sizes, is_tied=sizes[5] > 0), 0, LEGACY.size
        _, version, *widths, is_tied = VERSIONED.unpack(start)
        if version != 1:
            what = "version 2, quantized to 8 bits" if version == 2 else f"version {version}"
            raise broken(self.path, "llama2.c's version 0 or 1, in float32", what)
        return self._config(widths, is_tied=bool(is_tied)), 1, VERSIONED_BYTES

    def _config(self, sizes: Sequence[int], *, is_tied: bool) -> ModelConfig:
        names = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
        values = dict(zip(names, sizes, strict=True))
        values["vocab_size"] = abs(values["vocab_size"])
        try:
            return ModelConfig.model_validate({**values, "tie_embeddings": is_tied}, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            got = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise broken(self.path, "the sizes of a Llama in the header", got) from None

    def _plan(self, version: int, start: int) -> tuple[dict[str, int], int]:
        """First byte of each tensor, and of what would follow the file."""
        names = {meta_name(name): name for name in shapes(self.config)}
        wanted = shapes(self.config)
        offsets = {}
        for meta in self._order(version):
            if meta is None:
                start += self.config.max_seq_len * self.config.head_dim * FLOAT_BYTES  # cosines, then sines
                continue
            offsets[names[meta]] = start
            start += math.prod(wanted[names[meta]]) * FLOAT_BYTES
        return offsets, start

    def _order(self, version: int) -> Iterator[str | None]:
        """Meta's names in the order of the file; None for the rotary tables of version 0."""
        layers = range(self.config.n_layers)
        if version == 1:
            for norm in ("attention_norm", "ffn_norm"):
                yield from (f"layers.{layer}.{norm}.weight" for layer in layers)
            yield "norm.weight"
        yield "tok_embeddings.weight"
        for part in _LAYER_ORDER[version]:
            yield from (f"layers.{layer}.{part}.weight" for layer in layers)
        if version == 0:
            yield "norm.weight"
            yield None
        if not self.config.tie_embeddings:
            yield "output.weight"
