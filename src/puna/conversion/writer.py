"""Writing a checkpoint one tensor at a time: resumable after a kill, published whole, verified by re-reading.

Beside the target `llama` the work lives in `.llama.partial`: `result` becomes the target, `journal.jsonl` holds the
request and then a line for every finished tensor with the sha256 of its values. After the last tensor, the result is
read back through the reader of its own format and compared with those sums; only then it gets its name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from puna.conversion.layout import Layout
from puna.conversion.stream import TensorSource, cast, row_blocks
from puna.core.errors import ConfigError, StorageError
from puna.core.locking import run_lock
from puna.core.progress import Reporter
from puna.core.storage import storage_errors, sync

__all__ = ["Workspace", "digest", "refuse_overwriting", "verify", "workspace", "write_tensors"]


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


class Workspace:
    """The partial folder of one conversion; made by `workspace`."""

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self.folder = folder
        self.result = folder / "result"
        self._journal = folder / "journal.jsonl"
        self._head = json.dumps({"request": request}, sort_keys=True)
        self.sums: dict[str, str] = {}
        """sha256 of each tensor already written."""
        self.is_begun = self._resume()

    def _resume(self) -> bool:
        """Take up what an earlier try of the same request left; forget that of another."""
        done = self._read_journal() if self.result.exists() else None
        if done is None:
            if self.result.is_dir():
                shutil.rmtree(self.result)
            self.result.unlink(missing_ok=True)
            self.forget()
            return False
        self.begin()
        for name, checksum in done.items():
            self.record(name, checksum)
        return True

    def _read_journal(self) -> dict[str, str] | None:
        """The finished tensors of this request; a last line that a kill cut short does not count."""
        if not self._journal.is_file():
            return None
        try:
            head, *lines = self._journal.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            entries = [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError:
            return None
        if head != self._head + "\n" or not all(isinstance(entry, dict) for entry in entries):
            return None
        return {name: checksum for entry in entries for name, checksum in entry.items()}

    def begin(self) -> None:
        """From here on a later try of the same request goes on from the journal."""
        self._journal.write_text(self._head + "\n", encoding="utf-8")

    def record(self, name: str, checksum: str) -> None:
        """This tensor is written."""
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: checksum}) + "\n")
        self.sums[name] = checksum

    def forget(self) -> None:
        """Start over at the next try."""
        self._journal.unlink(missing_ok=True)


@contextmanager
def workspace(target: Path, request: Mapping[str, Any]) -> Iterator[Workspace]:
    """A partial folder beside the target, locked; when the body ends well, its `result` becomes the target.

    Raises:
        ConfigError: the target exists.
        RunLockedError: another conversion to the same target runs.
        StorageError: the disk is full or cannot be written; the same command goes on later.
    """
    refuse_overwriting(target)
    partial = target.with_name(f".{target.name}.partial")
    with storage_errors(target), run_lock(partial):
        work = Workspace(partial, request)
        yield work
        refuse_overwriting(target)
        for path in [*sorted(work.result.rglob("*")), work.result]:
            sync(path)
        work.result.rename(target)
        sync(target.parent)
        shutil.rmtree(partial)


def write_tensors(source: TensorSource, layout: Layout, work: Workspace, *, reporter: Reporter) -> None:
    """Write every tensor that the journal does not list, then the rest of the files.

    Raises:
        CheckpointError: a tensor is damaged, or does not fit the format; names it.
    """
    if not work.is_begun:
        work.result.mkdir()
        layout.begin(work.result)
        work.begin()
    total = sum(info.n_bytes for info in layout.tensors.values())
    done = sum(layout.tensors[name].n_bytes for name in work.sums)
    with (
        ExitStack() as stack,
        reporter.track("writing", _megabytes(total), "MB", completed=_megabytes(done)) as tracker,
    ):
        paths = sorted(work.result.iterdir())
        files = {path.name: stack.enter_context(path.open("r+b", buffering=0)) for path in paths}
        for name, info in layout.tensors.items():
            if name not in work.sums:
                work.record(name, _write(source, name, layout, files))
                done += info.n_bytes
                tracker.advance(_megabytes(done) - tracker.completed)
    layout.finish(work.result)


def _write(source: TensorSource, name: str, layout: Layout, files: Mapping[str, BinaryIO]) -> str:
    """Write one tensor, which is let go of on return; its checksum."""
    checksum = hashlib.sha256()
    for first, rows in row_blocks(source.read(name), multiple=layout.rows_together(name)):
        values = cast(rows, name, dtype=layout.tensors[name].dtype, where=source.path)
        checksum.update(_bytes(values))
        for part in layout.place(name, first, values):
            _write_at(files[part.file], part.offset, _bytes(part.values))
    return checksum.hexdigest()


def verify(
    work: Workspace, reopen: Callable[[Path], TensorSource], layout: Layout, *, reporter: Reporter
) -> None:
    """Read the result back and compare every tensor with what was meant.

    Raises:
        StorageError: a tensor came back with other bits; the next try starts over.
    """
    total = sum(info.n_bytes for info in layout.tensors.values())
    done = 0
    with reopen(work.result) as written, reporter.track("verifying", _megabytes(total), "MB") as tracker:
        for name, info in written.tensors.items():
            if digest(written.read(name)) != work.sums[name]:
                work.forget()
                raise StorageError(
                    where=str(work.result),
                    expected=f"{name} as it was written",
                    got="other bits when read back",
                    fix="Check the disk, then run the same command again: it starts over.",
                )
            done += info.n_bytes
            tracker.advance(_megabytes(done) - tracker.completed)


def digest(tensor: Tensor) -> str:
    """sha256 of a tensor's values, row by row."""
    checksum = hashlib.sha256()
    for _, rows in row_blocks(tensor):
        checksum.update(_bytes(rows))
    return checksum.hexdigest()


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _write_at(file: BinaryIO, offset: int, content: memoryview) -> None:
    while content:
        count = os.pwrite(file.fileno(), content, offset)
        content, offset = content[count:], offset + count


def _megabytes(n_bytes: int) -> int:
    return n_bytes // 10**6
