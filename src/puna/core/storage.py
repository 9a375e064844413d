"""Writing so that a crash or a full disk never leaves half a file where a whole one was."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from puna.core.errors import StorageError

__all__ = ["FULL_DISK", "is_failed_write", "storage_errors", "sync", "write_atomically", "write_json"]

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FULL_TEXTS = (
    "No space left on device",
    "os error 28",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter failed",
    "unexpected pos",
)
"""How torch, safetensors and C++ writers word a failed write once the error number is lost."""


class storage_errors(AbstractContextManager[None]):
    """Turn a failed write anywhere inside into a StorageError that names the folder.

    Libraries wrap a full disk in RuntimeError, SafetensorError or torch's CheckpointException, so the
    whole chain of causes is read. Everything else passes unchanged.
    """

    def __init__(
        self,
        where: Path | str,
        *,
        fix: str = "Free disk space and run the same command again: finished work is kept.",
    ) -> None:
        self.where = where
        self.fix = fix

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cause = error
        while cause is not None and not isinstance(cause, StorageError):
            if is_failed_write(cause):
                is_read_only = isinstance(cause, OSError) and cause.errno == errno.EROFS
                raise StorageError(
                    where=str(self.where),
                    expected="a file system that can be written" if is_read_only else "room to write",
                    got=(str(cause).splitlines() or [type(cause).__name__])[0],
                    fix="Choose an output folder elsewhere." if is_read_only else self.fix,
                ) from error
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def is_failed_write(error: BaseException) -> bool:
    """Whether an error says that the disk is full or cannot be written, in the words of any library."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    return any(text in str(error) for text in _FULL_TEXTS)


def sync(path: Path) -> None:
    """Wait until this file or folder is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file: readers see the old or the new one, after a power cut too."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def write_json(path: Path, content: Mapping[str, Any], *, indent: int = 2, ensure_ascii: bool = True) -> None:
    """One JSON object as a text file that ends with a line end."""
    text = json.dumps(content, indent=indent, ensure_ascii=ensure_ascii)
    path.write_text(f"{text}\n", encoding="utf-8")
