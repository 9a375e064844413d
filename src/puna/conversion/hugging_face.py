"""Hugging Face Llama folders, through safetensors; model/checkpoint.py has the layout of their files."""

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from puna.conversion.source import TensorInfo, TensorSource, check_tensors
from puna.conversion.tokenizer_files import folder_tokenizer, generation_of
from puna.model.checkpoint import MAX_SHARD_BYTES, opened, stored_tensors, write_weights
from puna.model.generation_config import read_generation_config, write_generation_config
from puna.model.hf_config import broken, config_to_hf, read_config

__all__ = ["HuggingFaceSource", "write_hugging_face"]

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


def write_hugging_face(source: TensorSource, folder: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write a LlamaForCausalLM folder; one file's weights are held at a time."""
    sizes = {name: info.n_bytes for name, info in source.tensors.items()}
    write_weights(folder, sizes, source.read, max_shard_bytes=max_shard_bytes)
    generation = source.generation or generation_of(source.tokenizer)
    values = config_to_hf(
        source.config,
        architecture="LlamaForCausalLM",
        dtype=next(iter(source.tensors.values())).dtype,
        token_ids=generation.token_ids(),
    )
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_generation_config(generation, folder, max_length=source.config.max_seq_len)
    if source.tokenizer is not None:
        source.tokenizer.save(folder, max_seq_len=source.config.max_seq_len)
