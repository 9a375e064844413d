"""A conversion is built aside and published whole, after the result was read back.

Beside the target `llama` the work lies in `.llama.partial`. What a killed conversion left there is removed by the
next one, which starts again.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from puna.conversion.source import TensorSource
from puna.core.errors import ConfigError, StorageError
from puna.core.locking import run_lock
from puna.core.storage import storage_errors, sync

__all__ = ["built_aside", "not_as_written", "refuse_overwriting", "verify"]


def refuse_overwriting(target: Path) -> None:
    """Nothing is ever overwritten.

    Raises:
        ConfigError: something is there.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(
            where=str(target),
            expected="a name that is free",
            got="a file or folder of that name",
            fix="Nothing is overwritten: choose another target, or remove it yourself.",
        )


@contextmanager
def built_aside(target: Path) -> Iterator[Path]:
    """A free path beside the target, locked; when the body ends well, what it wrote there becomes the target.

    Raises:
        ConfigError: the target exists.
        RunLockedError: another conversion to the same target runs.
        StorageError: the disk is full or cannot be written.
    """
    refuse_overwriting(target)
    partial = target.with_name(f".{target.name}.partial")
    result = partial / "result"
    fix = "Free disk space and run the same command again: it starts over."
    with storage_errors(target, fix=fix), run_lock(partial):
        try:
            _remove(result)
            yield result
            refuse_overwriting(target)
            for path in [*sorted(result.rglob("*")), result]:
                sync(path)
            result.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def verify(written: TensorSource, source: TensorSource) -> None:
    """Compare what the reader of the written format finds with what was meant, bit for bit.

    Args:
        source: As it was given to the writer.
    Raises:
        StorageError: a tensor came back with other bits, or in another number format.
    """
    for name in written.tensors:
        if not _same_bits(written.read(name), source.read(name)):
            raise not_as_written(written.path, name)


def not_as_written(where: Path, name: str) -> StorageError:
    """The error of a disk that returned something else."""
    return StorageError(
        where=str(where),
        expected=f"{name} as it was written",
        got="other bits when read back",
        fix="Check the disk, then run the same command again: it starts over.",
    )


def _same_bits(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))
