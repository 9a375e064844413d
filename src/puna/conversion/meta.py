"""Meta's consolidated checkpoints as a stream: consolidated.NN.pth shards, params.json, checklist.chk.

Each tensor is put together from its parts a few rows at a time; rope.freqs follows from the configuration and is
ignored. Not read: Llama 3's folders, which cut the embedding the other way.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from puna.conversion.layout import Layout, Part
from puna.conversion.meta_params import PARAMS_FILE, read_params, write_params
from puna.conversion.meta_shapes import check_split, interleave, is_rotated, separate, split_dim
from puna.conversion.pth import PthFile
from puna.conversion.pth_writer import PthPlan
from puna.conversion.stream import BLOCK_BYTES, TensorInfo, TensorSource, check_tensors, row_blocks, shapes
from puna.conversion.tokenizer_files import folder_tokenizer
from puna.core.errors import ConfigError
from puna.model.checkpoint import meta_name
from puna.model.config import ModelConfig
from puna.model.hf_config import broken
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["MetaLayout", "MetaSource"]

CHECKLIST = "checklist.chk"
IGNORED = "rope.freqs"


class MetaSource(TensorSource):
    """An open folder of consolidated shards."""

    def __init__(self, folder: Path) -> None:
        """Check the checksums if there are any, then every index.

        Raises:
            CheckpointError: a shard is missing, damaged, or does not hold its part of the model.
        """
        self.path = folder
        _check_checklist(folder)
        self._shards: list[PthFile] = []
        try:
            for path in _shard_paths(folder):
                self._shards.append(PthFile(path))
            self._open(folder)
        except BaseException:
            self.close()
            raise
        self.tokenizer = folder_tokenizer(folder) or folder_tokenizer(folder.resolve().parent)

    def close(self) -> None:
        """Close the shards."""
        for shard in self._shards:
            shard.close()

    def read(self, name: str) -> Tensor:
        """One tensor from all shards, in Hugging Face's row order."""
        meta, info = self._names[name], self.tensors[name]
        axis = split_dim(meta)
        if axis is None:
            return self._replicated(name)
        whole = torch.empty(info.shape, dtype=info.dtype)
        parts = whole.chunk(len(self._shards), dim=axis)
        for shard, part in zip(self._shards, parts, strict=True):
            for first, rows in row_blocks(part):
                rows.copy_(shard.rows(meta, first, len(rows)))
        if is_rotated(meta):
            for _, rows in row_blocks(whole, multiple=self.config.head_dim):
                rows.copy_(separate(rows, head_dim=self.config.head_dim))
        return whole

    def _open(self, folder: Path) -> None:
        first = self._shards[0].tensors
        widths = {}
        for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
            if name not in first or len(first[name].shape) != 2:
                raise broken(self._shards[0].path, f"the matrix {name}", "no such matrix")
            widths[name] = first[name].shape[0]
        vocab_size, hidden_dim = widths.values()
        self.config = read_params(folder, vocab_size=vocab_size, hidden_dim=hidden_dim * len(self._shards))
        try:
            check_split(self.config, len(self._shards))
        except ConfigError as error:
            raise broken(
                folder, f"{error.expected.removesuffix(' for this model')} shards", error.got
            ) from None
        self._names = {name: meta_name(name) for name in shapes(self.config)}
        found = {name: self._joined(meta) for name, meta in self._names.items()}
        self.tensors = check_tensors(self.config, found, where=folder)
        self._check_unknown()

    def _joined(self, meta: str) -> TensorInfo:
        """Shape and format of a tensor, the same part of it in every shard."""
        infos = set()
        for shard in self._shards:
            if meta not in shard.tensors:
                raise broken(shard.path, f"the tensor {meta}", "no such tensor")
            infos.add(shard.tensors[meta])
        if len(infos) != 1:
            raise broken(self.path, f"{meta} in one shape and format", f"{len(infos)} kinds among the shards")
        (info,) = infos
        axis = split_dim(meta)
        if axis is None or axis >= len(info.shape):
            return info
        shape = [size * len(self._shards) if i == axis else size for i, size in enumerate(info.shape)]
        return TensorInfo(tuple(shape), info.dtype)

    def _check_unknown(self) -> None:
        ignored = {IGNORED} | ({"output.weight"} if self.config.tie_embeddings else set())
        for shard in self._shards:
            unknown = sorted(shard.tensors.keys() - set(self._names.values()) - ignored)
            if unknown:
                raise broken(shard.path, "the tensors of a Llama", f"also {unknown[0][:80]}")

    def _replicated(self, name: str) -> Tensor:
        """A tensor that every shard holds whole, the same in each."""
        meta, (shape, _) = self._names[name], self.tensors[name]
        first, *others = (shard.rows(meta, 0, shape[0]) for shard in self._shards)
        for shard, other in zip(self._shards[1:], others, strict=True):
            if not torch.equal(first.view(torch.uint8), other.view(torch.uint8)):
                raise broken(shard.path, f"{meta} as in {self._shards[0].path.name}", "other values")
        return first


class MetaLayout(Layout):
    """Shards that Meta's code loads on as many devices."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, TensorInfo],
        tokenizer: Tokenizer | None,
        *,
        n_shards: int,
    ) -> None:
        """Plan every shard.

        Raises:
            ConfigError: the model cannot be cut into that many.
        """
        check_split(config, n_shards)
        self.tensors = tensors
        self._config = config
        self._tokenizer = tokenizer
        self._n_shards = n_shards
        parts: dict[str, TensorInfo] = {}
        for name, info in tensors.items():
            for meta in self._metas(name):
                axis = split_dim(meta)
                shape = tuple(size // n_shards if i == axis else size for i, size in enumerate(info.shape))
                parts[meta] = TensorInfo(shape, info.dtype)
        self._parts = parts
        self._plan = PthPlan(parts)
        self._files = [f"consolidated.{number:02d}.pth" for number in range(n_shards)]

    def begin(self, folder: Path) -> None:
        """The index of each shard, and room for its tensors."""
        for file in self._files:
            self._plan.begin(folder / file)

    def rows_together(self, name: str) -> int:
        """The permutation moves rows inside a head."""
        return self._config.head_dim if is_rotated(meta_name(name)) else 1

    def place(self, name: str, first_row: int, rows: Tensor) -> Iterator[Part]:
        """The part of these rows that each shard holds."""
        for meta in self._metas(name):
            values = interleave(rows, head_dim=self._config.head_dim) if is_rotated(meta) else rows
            yield from self._cut(meta, first_row, values)

    def finish(self, folder: Path) -> None:
        """Checksums, params.json and the tokenizer, with the files that keep its chat template."""
        for file in self._files:
            self._plan.finish(folder / file)
        write_params(self._config, folder)
        names = [*self._files, PARAMS_FILE]
        lines = [f"{_md5(folder / name)}  {name}\n" for name in names]
        (folder / CHECKLIST).write_text("".join(lines), encoding="utf-8")
        if self._tokenizer is not None:
            self._tokenizer.save(folder, max_seq_len=self._config.max_seq_len)

    def _metas(self, name: str) -> list[str]:
        """Meta's name; for a tied embedding also the output matrix, which Meta's code always reads."""
        is_tied = self._config.tie_embeddings and name == "model.embed_tokens.weight"
        return [meta_name(name), *(["output.weight"] if is_tied else [])]

    def _cut(self, meta: str, first_row: int, rows: Tensor) -> Iterator[Part]:
        start, part = self._plan.offsets[meta], self._parts[meta]
        axis = split_dim(meta)
        if axis == 0:
            height = part.shape[0]
            row_bytes = rows.nbytes // len(rows)
            for shard, file in enumerate(self._files):
                low, high = max(first_row, shard * height), min(first_row + len(rows), (shard + 1) * height)
                if low < high:
                    offset = start + (low - shard * height) * row_bytes
                    yield Part(file, offset, rows[low - first_row : high - first_row])
            return
        for shard, file in enumerate(self._files):
            values = rows if axis is None else rows.chunk(self._n_shards, dim=1)[shard]
            yield Part(file, start + first_row * (values.nbytes // len(values)), values)


def _shard_paths(folder: Path) -> list[Path]:
    """consolidated.00.pth and so on, none missing."""
    found = {path.name for path in folder.glob("consolidated.*.pth")}
    names = [f"consolidated.{number:02d}.pth" for number in range(len(found))]
    missing = [name for name in names if name not in found]
    if missing or not names:
        got = f"{len(found)} shards but no {missing[0]}" if missing else "no shard"
        raise broken(folder, "consolidated.00.pth and those after it", got)
    return [folder / name for name in names]


def _check_checklist(folder: Path) -> None:
    """The md5 sums that came with the files, where they did."""
    path = folder / CHECKLIST
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise broken(path, "lines of md5 sums and names", str(error)) from None
    for line in lines:
        expected, _, name = line.partition(" ")
        name = name.strip().removeprefix("*")
        if not line.strip():
            continue
        if not name or Path(name).name != name or name in (".", ".."):
            raise broken(path, "names of files of this folder", name[:80] or "a line without one")
        if not (folder / name).is_file():
            raise broken(folder, f"{name}, which {CHECKLIST} lists", "no such file")
        if (got := _md5(folder / name)) != expected:
            raise broken(folder / name, f"the md5 sum {expected[:40]}", got)


def _md5(path: Path) -> str:
    checksum = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum.update(block)
    return checksum.hexdigest()
