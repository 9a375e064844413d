"""One writer a folder: an advisory lock that the system releases however the process ends."""

import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from puna.core.errors import RunLockedError, StorageError
from puna.core.storage import FULL_DISK, storage_errors

__all__ = ["run_lock"]

_held: set[int] = set()


@contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold `out/.lock` (flock) while the body runs; the folder is made when absent.

    Raises:
        RunLockedError: another process, named by its number, holds it.
        StorageError: the folder cannot be made or written.
    """
    _release_in_children()
    with storage_errors(out):
        descriptor = _acquire(out / ".lock")
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(descriptor)
            raise
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """Open and lock; again when the file was deleted between the two, as a finishing writer does."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            raise StorageError(
                where=str(path.parent),
                expected="a folder that can be written",
                got=error.strerror or str(error),
                fix="Choose another output folder.",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise RunLockedError(
                where=str(path.parent),
                expected="no other run on this folder",
                got=f"process {holder} writing it",
                fix="Wait for it to end, stop it, or choose another output folder.",
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


@functools.cache
def _release_in_children() -> None:
    """Forked workers drop their copy of a lock: one that outlives a killed run must not keep it."""
    os.register_at_fork(after_in_child=_close_held)
