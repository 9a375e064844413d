"""Killed conversions go on to the same bytes; nothing is overwritten; what comes back wrong is noticed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from conversions import assert_same_bits, run, weights
from puna.conversion import writer
from puna.conversion.hugging_face import HuggingFaceSource
from puna.conversion.meta import MetaSource
from puna.conversion.stream import TensorSource
from puna.core.errors import CheckpointError, ConfigError, RunLockedError, StorageError
from puna.core.locking import run_lock

MakeFolder = Callable[..., Path]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    """Stands for a signal: nothing in the product may catch it."""


def kill_after(n_tensors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the conversion when this many tensors are finished."""
    record = writer.Workspace.record

    def last(self: writer.Workspace, name: str, checksum: str) -> None:
        record(self, name, checksum)
        if len(self.sums) == n_tensors:
            raise Killed

    monkeypatch.setattr(writer.Workspace, "record", last)


def files_without_times(folder: Path) -> dict[str, object]:
    """What a converted folder holds; of its manifest, all but when and on how much memory it was made."""
    found: dict[str, object] = dict(files(folder))
    if "manifest.json" in found:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found["manifest.json"] = {
            name: value
            for name, value in manifest.items()
            if name not in ("started", "wall_seconds", "peak_rss_bytes")
        }
    return found


@pytest.mark.parametrize(("to", "shards"), [("meta", 4), ("hf", None)])
@pytest.mark.parametrize("n_reads", [0, 1, 7, 19])
def test_a_killed_conversion_goes_on_to_the_same_bytes(
    make_folder: MakeFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    shards: int | None,
    n_reads: int,
) -> None:
    folder = make_folder(torch.float32)
    run(folder, tmp_path / "whole", to, shards=shards, dtype="bf16")
    names: list[str] = []
    read = HuggingFaceSource.read

    def counted(self: HuggingFaceSource, name: str) -> Tensor:
        if self.path == folder:
            if len(names) == n_reads:
                raise Killed
            names.append(name)
        return read(self, name)

    monkeypatch.setattr(HuggingFaceSource, "read", counted)
    with pytest.raises(Killed):
        run(folder, tmp_path / "out", to, shards=shards, dtype="bf16")
    assert not (tmp_path / "out").exists()
    before, n_reads = list(names), -1
    names.clear()
    run(folder, tmp_path / "out", to, shards=shards, dtype="bf16")
    assert not set(before) & set(names)  # finished tensors are not read again
    assert files_without_times(tmp_path / "out") == files_without_times(tmp_path / "whole")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_line_of_the_journal_cut_short_does_not_count(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    with monkeypatch.context() as patch:
        kill_after(5, patch)
        with pytest.raises(Killed):
            run(folder, tmp_path / "out", "hf")
    journal = tmp_path / ".out.partial" / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - 30)
    run(folder, tmp_path / "out", "hf")
    assert_same_bits(weights(tmp_path / "out"), weights(folder))


def test_another_request_starts_over(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remains of a conversion to bf16, or of a source that changed since, are not mixed into this one."""
    folder = make_folder()
    for dtype in ("bf16", None):
        with monkeypatch.context() as patch:
            kill_after(9, patch)
            with pytest.raises(Killed):
                run(folder, tmp_path / "out", "hf", dtype=dtype)
    newer = make_folder(seed=6)
    run(newer, tmp_path / "out", "hf")
    assert_same_bits(weights(tmp_path / "out"), weights(newer))


def test_a_damaged_journal_starts_over(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    partial = tmp_path / ".out.partial"
    (partial / "result").mkdir(parents=True)
    for content in (b"", b"\xff\xfe\n", b"{}\n", b'{"request": 1}\n[1]\n'):
        (partial / "journal.jsonl").write_bytes(content)
        run(folder, tmp_path / "out", "hf")
        assert_same_bits(weights(tmp_path / "out"), weights(folder))
        (tmp_path / "out").rename(tmp_path / f"done {content!r}")
        (partial / "result").mkdir(parents=True)


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_nothing_is_overwritten(make_folder: MakeFolder, tmp_path: Path, kind: str) -> None:
    folder, target = make_folder(), tmp_path / "there"
    if kind == "file":
        target.write_text("mine")
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "mine").touch()
    for to in ("hf", "meta"):
        with pytest.raises(ConfigError, match="a name that is free"):
            run(folder, target, to)


def test_what_appeared_meanwhile_is_not_overwritten(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = make_folder(), tmp_path / "out"
    record = writer.Workspace.record

    def intruding(self: writer.Workspace, name: str, checksum: str) -> None:
        record(self, name, checksum)
        target.mkdir(exist_ok=True)

    monkeypatch.setattr(writer.Workspace, "record", intruding)
    with pytest.raises(ConfigError, match="a name that is free"):
        run(folder, target, "hf")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(("to", "reader"), [("hf", HuggingFaceSource), ("meta", MetaSource)])
def test_other_bits_when_read_back_are_noticed(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, reader: type
) -> None:
    """One bit of one weight, as a disk could return it; the next try starts over and succeeds."""
    folder = make_folder()
    read = reader.read

    def flipped(self: HuggingFaceSource, name: str) -> Tensor:
        tensor = read(self, name)
        if self.path != folder and name == "model.layers.1.mlp.down_proj.weight":
            tensor = tensor.clone()
            tensor.view(torch.int32)[3, 2] ^= 1
        return tensor

    with monkeypatch.context() as patch:
        patch.setattr(reader, "read", flipped)
        with pytest.raises(StorageError, match=r"layers\.1\.mlp\.down_proj.*other bits"):
            run(folder, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()
    run(folder, tmp_path / "out", to)


def test_a_full_disk_is_one_message(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="room to write"):
            run(folder, tmp_path / "out", "hf")
    run(folder, tmp_path / "out", "hf")
    assert_same_bits(weights(tmp_path / "out"), weights(folder))


def test_one_conversion_a_target(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    with run_lock(tmp_path / ".out.partial"), pytest.raises(RunLockedError):
        run(folder, tmp_path / "out", "hf")


def test_a_target_inside_the_source_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    for target in (folder / "out", folder / ".." / folder.name / "out"):
        with pytest.raises(ConfigError, match="a target outside the source"):
            run(folder, target, "hf")


def test_a_range_that_the_format_lacks_is_refused_by_name(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    tensors = weights(folder)
    tensors["model.norm.weight"][3] = 1e5
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight within the range of float16"):
        run(folder, tmp_path / "out", "hf", dtype="fp16")
    run(folder, tmp_path / "out", "hf", dtype="bf16")
    expected = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    assert_same_bits(weights(tmp_path / "out"), expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_tensor_is_let_go_before_the_next_is_read(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing and verifying; test_memory.py measures what this promises."""
    run(make_folder(), tmp_path / "meta", "meta", shards=2)
    alive: list[StorageWeakRef] = []
    for reader in (HuggingFaceSource, MetaSource):

        def watched(self: TensorSource, name: str, read: Callable[..., Tensor] = reader.read) -> Tensor:
            assert all(storage.expired() for storage in alive)
            tensor = read(self, name)
            alive.append(StorageWeakRef(tensor.untyped_storage()))
            return tensor

        monkeypatch.setattr(reader, "read", watched)
    run(tmp_path / "meta", tmp_path / "out", "hf", dtype="bf16")
    assert len(alive) == 2 * len(weights(tmp_path / "out"))
