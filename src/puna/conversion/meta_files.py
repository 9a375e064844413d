"""consolidated.NN.pth, through torch.load and torch.save: what is in a shard, and the sums of checklist.chk.

A pickle is a program: torch.load(weights_only=True) runs none of it but what rebuilds tensors. With mmap=True a tensor
is a view of the file, so that its size cannot exceed the file's.
"""

import hashlib
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from puna.model.hf_config import broken

__all__ = ["CHECKLIST", "check_checklist", "load_shard", "shard_names", "shard_paths", "write_checklist"]

CHECKLIST = "checklist.chk"


def shard_names(n_shards: int) -> list[str]:
    """consolidated.00.pth and so on."""
    return [f"consolidated.{number:02d}.pth" for number in range(n_shards)]


def shard_paths(folder: Path) -> list[Path]:
    """Every shard of a folder.

    Raises:
        CheckpointError: one is missing.
    """
    there = {path.name for path in folder.glob("consolidated.*.pth")}
    names = shard_names(len(there))
    missing = [name for name in names if name not in there]
    if missing or not names:
        got = f"{len(there)} shards but no {missing[0]}" if missing else "no shard"
        raise broken(folder, "consolidated.00.pth and those after it", got)
    return [folder / name for name in names]


def load_shard(path: Path) -> dict[str, Tensor]:
    """The tensors of one .pth file, as views of the mapped file.

    Raises:
        CheckpointError: the file is missing, old, truncated, compressed, or holds anything but dense tensors by name.
    """
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols that it reads all the same
            shard = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise broken(path, "a .pth file of nothing but tensors", _reason(error)) from None
    if not isinstance(shard, dict):
        raise broken(path, "a dictionary of tensors", type(shard).__name__)
    for name, tensor in shard.items():
        _check_tensor(path, name, tensor)
    return {name: tensor.detach() for name, tensor in shard.items()}


def _check_archive(path: Path) -> None:
    """An archive of torch 1.6 or later whose records are stored as they are: others could unfold to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
    except FileNotFoundError as error:
        raise broken(path, "a .pth file", error.strerror or str(error)) from None
    except Exception as error:  # zipfile promises no narrower type for damaged archives
        raise broken(path, "a whole .pth file of torch 1.6 or later", str(error)) from None
    if packed:
        raise broken(path, "records that are not compressed", f"{packed[0][:80]}, which is")


def _check_tensor(path: Path, name: object, tensor: object) -> None:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise broken(path, f"a tensor under the name {str(name)[:80]!r}", type(tensor).__name__)
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise broken(
            path, f"{name[:80]} stored row by row", f"{tensor.layout}, {tensor.device.type}, strided"
        )


def _reason(error: Exception) -> str:
    """The part of torch's message that says what was wrong, without its advice to load the file anyway."""
    text = str(error) or type(error).__name__
    refused = re.search(r"[Uu]nsupported [^\n]*?(?= was not| whose|\.? Please|\n|$)", text)
    return (refused[0] if refused else text.splitlines()[0])[:160]


def check_checklist(folder: Path) -> None:
    """The md5 sums that came with the files, where they did.

    Raises:
        CheckpointError: a file has another sum, or is missing.
    """
    path = folder / CHECKLIST
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise broken(path, "lines of md5 sums and names", str(error)) from None
    for line in filter(str.strip, lines):
        expected, _, name = line.partition(" ")
        name = name.strip().removeprefix("*")
        if not name or Path(name).name != name or name in (".", ".."):
            raise broken(path, "names of files of this folder", name[:80] or "a line without one")
        if not (folder / name).is_file():
            raise broken(folder, f"{name}, which {CHECKLIST} lists", "no such file")
        if (got := _md5(folder / name)) != expected:
            raise broken(folder / name, f"the md5 sum {expected[:40]}", got)


def write_checklist(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of these files."""
    lines = [f"{_md5(folder / name)}  {name}\n" for name in names]
    (folder / CHECKLIST).write_text("".join(lines), encoding="utf-8")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
