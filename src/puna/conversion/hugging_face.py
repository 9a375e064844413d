"""Hugging Face Llama folders as a stream: safetensors read and written one tensor at a time."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.conversion.layout import Layout, Part
from puna.conversion.stream import TensorInfo, TensorSource, check_tensors
from puna.conversion.tokenizer_files import folder_tokenizer
from puna.model.checkpoint import MAX_SHARD_BYTES, opened, stored_tensors
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig, read_generation_config, write_generation_config
from puna.model.hf_config import broken, config_to_hf, read_config
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["HuggingFaceLayout", "HuggingFaceSource"]

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_IGNORED = re.compile(r"rotary_emb\.inv_freq$")
"""Rotary frequencies that old exports stored; they follow from the configuration."""


class HuggingFaceSource(TensorSource):
    """An open LlamaForCausalLM folder; only safetensors is read, never pickle."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            CheckpointError: a file is missing, truncated, outside the folder, or the tensors are not the model's.
        """
        self.path = folder
        self.config = read_config(folder, architecture="LlamaForCausalLM")
        self._stored = stored_tensors(folder)
        found: dict[str, TensorInfo] = {}
        for name, stored in self._stored.items():
            if _IGNORED.search(name) or (self.config.tie_embeddings and name == "lm_head.weight"):
                continue
            if stored.dtype not in _DTYPES:
                raise broken(stored.path, f"{name[:80]} in F32, BF16 or F16", stored.dtype)
            found[name] = TensorInfo(stored.shape, _DTYPES[stored.dtype])
        self.tensors = check_tensors(self.config, found, where=folder)
        self.tokenizer = folder_tokenizer(folder)
        self.generation = read_generation_config(folder)

    def read(self, name: str) -> Tensor:
        """The tensor as a view of the mapped file, which is unmapped with it."""
        with opened(self._stored[name].path) as file:
            return file.get_tensor(name)

    def close(self) -> None:
        """Nothing stays open between reads."""


class HuggingFaceLayout(Layout):
    """model.safetensors, or shards of at most max_shard_bytes with an index; config.json and the tokenizer beside."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, TensorInfo],
        tokenizer: Tokenizer | None,
        generation: GenerationConfig,
        *,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self.tensors = tensors
        self._generation = generation
        self._config = config
        self._tokenizer = tokenizer
        shards = _shards(tensors, max_shard_bytes)
        self._headers: dict[str, bytes] = {}
        self._places: dict[str, tuple[str, int]] = {}
        for number, names in enumerate(shards, start=1):
            file = "model.safetensors"
            if len(shards) > 1:
                file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            self._headers[file] = header = _header({name: tensors[name] for name in names})
            offset = len(header)
            for name in names:
                self._places[name] = (file, offset)
                offset += tensors[name].n_bytes

    def begin(self, folder: Path) -> None:
        """Headers, then room for the tensors."""
        sizes = {file: len(header) for file, header in self._headers.items()}
        for name, (file, _) in self._places.items():
            sizes[file] += self.tensors[name].n_bytes
        for file, header in self._headers.items():
            with (folder / file).open("wb") as out:
                out.write(header)
                out.truncate(sizes[file])

    def place(self, name: str, first_row: int, rows: Tensor) -> Iterator[Part]:
        """Rows follow one another."""
        file, start = self._places[name]
        yield Part(file, start + first_row * (rows.nbytes // len(rows)), rows)

    def finish(self, folder: Path) -> None:
        """The index, the configurations and the tokenizer."""
        if len(self._headers) > 1:
            total = {"total_size": sum(info.n_bytes for info in self.tensors.values())}
            files = {name: file for name, (file, _) in self._places.items()}
            _write_json(folder / "model.safetensors.index.json", {"metadata": total, "weight_map": files})
        dtype = next(iter(self.tensors.values())).dtype
        values = config_to_hf(
            self._config,
            architecture="LlamaForCausalLM",
            dtype=dtype,
            token_ids=self._generation.token_ids(),
        )
        _write_json(folder / "config.json", values)
        write_generation_config(self._generation, folder, max_length=self._config.max_seq_len)
        if self._tokenizer is not None:
            self._tokenizer.save(folder, max_seq_len=self._config.max_seq_len)


def _shards(tensors: Mapping[str, TensorInfo], max_bytes: int) -> list[list[str]]:
    """Fill files in order; a tensor larger than the limit has one of its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + info.n_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.n_bytes
    return shards


def _header(tensors: Mapping[str, TensorInfo]) -> bytes:
    """A safetensors header: its length, then JSON with the place of each tensor, padded to 8 bytes."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in tensors.items():
        entries[name] = {
            "dtype": names[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.n_bytes],
        }
        offset += info.n_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
