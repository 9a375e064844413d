"""Meta's consolidated checkpoints: consolidated.NN.pth shards, params.json, checklist.chk.

rope.freqs follows from the configuration and is ignored. Not read: Llama 3's folders, which cut the embedding the
other way.
"""

from pathlib import Path

import torch
from torch import Tensor

from puna.conversion.meta_files import check_checklist, load_shard, shard_names, shard_paths, write_checklist
from puna.conversion.meta_params import PARAMS_FILE, read_params, write_params
from puna.conversion.meta_split import check_split, split_dim
from puna.conversion.rotary_rows import interleave, is_rotated, separate
from puna.conversion.source import TensorInfo, TensorSource, check_tensors, shapes
from puna.conversion.tokenizer_files import folder_tokenizer
from puna.core.errors import ConfigError
from puna.model.checkpoint import meta_name
from puna.model.config import ModelConfig
from puna.model.hf_config import broken

__all__ = ["MetaSource", "write_meta"]

IGNORED = "rope.freqs"


class MetaSource(TensorSource):
    """An open folder of consolidated shards."""

    def __init__(self, folder: Path) -> None:
        """Check the checksums if there are any, then map every shard.

        Raises:
            CheckpointError: a shard is missing, damaged, or does not hold its part of the model.
        """
        self.path = folder
        check_checklist(folder)
        self._paths = shard_paths(folder)
        self._shards = [load_shard(path) for path in self._paths]
        self.config = self._read_config()
        self._names = {name: meta_name(name) for name in shapes(self.config)}
        found = {name: self._joined(meta) for name, meta in self._names.items()}
        self.tensors = check_tensors(self.config, found, where=folder)
        self._check_unknown()
        self.tokenizer = folder_tokenizer(folder) or folder_tokenizer(folder.resolve().parent)

    def read(self, name: str) -> Tensor:
        """One tensor from all shards, in Hugging Face's row order."""
        meta = self._names[name]
        parts = [shard[meta] for shard in self._shards]
        axis = split_dim(meta)
        if axis is None:
            return self._replicated(meta, parts)
        whole = torch.cat(parts, dim=axis)
        return separate(whole, head_dim=self.config.head_dim) if is_rotated(name) else whole

    def _read_config(self) -> ModelConfig:
        widths = []
        for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
            if name not in self._shards[0] or self._shards[0][name].dim() != 2:
                raise broken(self._paths[0], f"the matrix {name}", "no such matrix")
            widths.append(self._shards[0][name].shape[0])
        vocab_size, hidden_dim = widths
        n_shards = len(self._shards)
        config = read_params(self.path, vocab_size=vocab_size, hidden_dim=hidden_dim * n_shards)
        try:
            check_split(config, n_shards)
        except ConfigError as error:
            expected = f"{error.expected.removesuffix(' for this model')} shards"
            raise broken(self.path, expected, error.got) from None
        return config

    def _joined(self, meta: str) -> TensorInfo:
        """Shape and format of a tensor, the same part of it in every shard."""
        infos = set()
        for path, shard in zip(self._paths, self._shards, strict=True):
            if meta not in shard:
                raise broken(path, f"the tensor {meta}", "no such tensor")
            infos.add(TensorInfo(tuple(shard[meta].shape), shard[meta].dtype))
        if len(infos) != 1:
            raise broken(self.path, f"{meta} in one shape and format", f"{len(infos)} kinds among the shards")
        (info,) = infos
        axis = split_dim(meta)
        shape = [size * len(self._shards) if i == axis else size for i, size in enumerate(info.shape)]
        return TensorInfo(tuple(shape), info.dtype)

    def _check_unknown(self) -> None:
        ignored = {IGNORED} | ({"output.weight"} if self.config.tie_embeddings else set())
        for path, shard in zip(self._paths, self._shards, strict=True):
            unknown = sorted(shard.keys() - set(self._names.values()) - ignored)
            if unknown:
                raise broken(path, "the tensors of a Llama", f"also {unknown[0][:80]}")

    def _replicated(self, meta: str, parts: list[Tensor]) -> Tensor:
        """A tensor that every shard holds whole, the same in each."""
        first = parts[0]
        for path, other in zip(self._paths, parts, strict=True):
            if not torch.equal(first.view(torch.uint8), other.view(torch.uint8)):
                raise broken(path, f"{meta} as in {self._paths[0].name}", "other values")
        return first


def write_meta(source: TensorSource, folder: Path, *, n_shards: int) -> None:
    """Write shards that Meta's code loads on as many devices; one shard's weights are held at a time.

    The files that keep the tokenizer and its chat template lie beside them.

    Raises:
        ConfigError: the model cannot be cut into that many.
    """
    check_split(source.config, n_shards)
    folder.mkdir()
    files = shard_names(n_shards)
    for number, file in enumerate(files):
        with (folder / file).open("wb") as stream:  # by a path, the bytes would depend on the folder's name
            torch.save(_shard(source, number, n_shards), stream)
    write_params(source.config, folder)
    write_checklist(folder, [*files, PARAMS_FILE])
    if source.tokenizer is not None:
        source.tokenizer.save(folder, max_seq_len=source.config.max_seq_len)


def _shard(source: TensorSource, number: int, n_shards: int) -> dict[str, Tensor]:
    """The part of every tensor that one shard holds, each with memory of its own."""
    shard = {}
    for name in source.tensors:
        rows = source.read(name)
        if is_rotated(name):
            rows = interleave(rows, head_dim=source.config.head_dim)
        for meta in _metas(name, source.config):
            axis = split_dim(meta)
            part = rows if axis is None else rows.chunk(n_shards, dim=axis)[number]
            shard[meta] = part.clone(memory_format=torch.contiguous_format)
    return shard


def _metas(name: str, config: ModelConfig) -> list[str]:
    """Meta's name; for a tied embedding also the output matrix, which Meta's code always reads."""
    is_tied = config.tie_embeddings and name == "model.embed_tokens.weight"
    return [meta_name(name), *(["output.weight"] if is_tied else [])]
