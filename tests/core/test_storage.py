"""A full disk is one clear error however a library words it, and every other error passes unchanged."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

from puna.core.errors import StorageError
from puna.core.metrics import MetricsLog
from puna.core.records import Document, write_records
from puna.core.storage import storage_errors, write_atomically, write_json


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tiny disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def write_plainly(disk: Path) -> None:
    (disk / "x").write_bytes(os.urandom(2**20))


def write_with_torch(disk: Path) -> None:
    torch.save({"x": torch.rand(2**18)}, disk / "x.pt")


def write_with_safetensors(disk: Path) -> None:
    safetensors.torch.save_file({"x": torch.rand(2**18)}, disk / "x.safetensors")


def write_distributed_checkpoint(disk: Path) -> None:
    dcp.save({"x": torch.rand(2**18)}, checkpoint_id=disk / "state", no_dist=True)


def write_metrics(disk: Path) -> None:
    log = MetricsLog(disk)
    try:
        for step in range(10_000):
            log.write(step, "train", loss=1.0, grad_norm=2.0)
    finally:
        log.close()


def write_compressed_records(disk: Path) -> None:
    write_records(
        disk / "x.jsonl.zst", [Document(id=str(i), text=os.urandom(999).hex(), source="") for i in range(999)]
    )


def write_a_small_file_again_and_again(disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(200 * 2**10))
    for i in range(99):
        write_atomically(disk / f"{i}.json", json.dumps(list(range(2000))))


WRITERS: list[Callable[[Path], None]] = [
    write_plainly,
    write_with_torch,
    write_with_safetensors,
    write_distributed_checkpoint,
    write_metrics,
    write_compressed_records,
    write_a_small_file_again_and_again,
]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_a_storage_error(tiny_disk: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(StorageError, match=r"disk.*: expected room to write, got"), storage_errors(tiny_disk):
        write(tiny_disk)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_wordings_of_a_full_disk(error: Exception) -> None:
    with pytest.raises(StorageError), storage_errors(Path("out")):
        raise error


def fail_from(cause: BaseException | None) -> None:
    """An error raised while a full disk was being handled."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise ValueError("could not save") from cause


def test_the_cause_may_be_wrapped() -> None:
    with pytest.raises(StorageError, match="No space left"), storage_errors(Path("out")):
        fail_from(RuntimeError("No space left on device"))


def test_a_chain_cut_on_purpose_stays_cut() -> None:
    with pytest.raises(ValueError, match="could not save"), storage_errors(Path("out")):
        fail_from(None)


def test_the_inner_storage_error_wins() -> None:
    with (
        pytest.raises(StorageError, match=r"^inner:"),
        storage_errors(Path("outer")),
        storage_errors(Path("inner")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOENT, "x"), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, storage_errors(Path("out")):
        raise error
    assert caught.value is error


def test_atomic_write_replaces(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", "old")
    write_atomically(tmp_path / "x", "newer")
    assert (tmp_path / "x").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_who_reads_during_an_atomic_write_has_the_old_file_whole(tmp_path: Path) -> None:
    """The old file is never opened for writing: what has it open, or linked, keeps it as it was."""
    write_atomically(tmp_path / "x", "old and longer")
    os.link(tmp_path / "x", tmp_path / "y")
    with (tmp_path / "x").open() as reader:
        write_atomically(tmp_path / "x", "new")
        assert reader.read() == "old and longer"
    assert (tmp_path / "y").read_text() == "old and longer"
    assert (tmp_path / "x").read_text() == "new"


def test_json_is_an_object_and_a_line_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "é", "a": [1]})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "b": "\\u00e9",\n  "a": [\n    1\n  ]\n}\n'
    write_json(tmp_path / "a.json", {"b": "é"}, indent=1, ensure_ascii=False)
    assert (tmp_path / "a.json").read_bytes() == '{\n "b": "é"\n}\n'.encode()
