"""A killed conversion leaves nothing; nothing is overwritten; what comes back wrong is noticed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file
from torch import Tensor

from conversions import assert_same_bits, run, weights
from puna.conversion.hugging_face import HuggingFaceSource
from puna.conversion.meta import MetaSource
from puna.core.errors import CheckpointError, ConfigError, RunLockedError, StorageError
from puna.core.locking import run_lock
from puna.model import checkpoint

MakeFolder = Callable[..., Path]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    """Stands for a signal: nothing in the product may catch it."""


def files_without_times(folder: Path) -> dict[str, object]:
    """What a converted folder holds; of its manifest, all but when and on how much memory it was made."""
    found: dict[str, object] = dict(files(folder))
    if "manifest.json" in found:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found["manifest.json"] = {
            name: value
            for name, value in manifest.items()
            if name not in ("started", "wall_seconds", "peak_rss_bytes", "made_at")
        }
    return found


def contents(path: Path) -> dict[str, object]:
    return {"": path.read_bytes()} if path.is_file() else files_without_times(path)


@pytest.mark.parametrize(("to", "shards"), [("meta", 4), ("hf", None), ("gguf", None)])
@pytest.mark.parametrize("n_reads", [0, 1, 19, 22, 41])
def test_a_killed_conversion_leaves_nothing_and_the_next_one_is_whole(
    make_folder: MakeFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    shards: int | None,
    n_reads: int,
) -> None:
    """Stopped while writing the first or a later shard, or (after 21 reads, in Meta's case 84) while verifying."""
    folder = make_folder(torch.float32)
    whole = tmp_path / "whole" / "out"
    whole.parent.mkdir()
    run(folder, whole, to, shards=shards, dtype="bf16")
    read, left = HuggingFaceSource.read, [n_reads]

    def stopping(self: HuggingFaceSource, name: str) -> Tensor:
        if self.path == folder:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return read(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(HuggingFaceSource, "read", stopping)
        with pytest.raises(Killed):
            run(folder, tmp_path / "out", to, shards=shards, dtype="bf16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "whole"]
    run(folder, tmp_path / "out", to, shards=shards, dtype="bf16")
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("to", ["hf", "meta", "gguf"])
def test_what_a_killed_process_left_is_not_mixed_in(make_folder: MakeFolder, tmp_path: Path, to: str) -> None:
    """Files of another conversion, as SIGKILL leaves them; or one file where a folder will be."""
    folder, partial = make_folder(), tmp_path / ".out.partial"
    whole = tmp_path / "whole" / "out"
    whole.parent.mkdir()
    run(folder, whole, to)
    for remains in ("folder", "file"):
        partial.mkdir()
        if remains == "file":
            (partial / "result").write_bytes(b"GGUF")
        else:
            (partial / "result").mkdir()
            (partial / "result" / "model-00007-of-00009.safetensors").write_bytes(b"half")
            (partial / "result" / "consolidated.07.pth").write_bytes(b"half")
        run(folder, tmp_path / "out", to)
        assert not partial.exists()
        assert contents(tmp_path / "out") == contents(whole)
        (tmp_path / "out").rename(tmp_path / f"done {remains}")


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
    read = HuggingFaceSource.read

    def intruding(self: HuggingFaceSource, name: str) -> Tensor:
        target.mkdir(exist_ok=True)
        return read(self, name)

    monkeypatch.setattr(HuggingFaceSource, "read", intruding)
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

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name, to in (
        (checkpoint, "save_file", "hf"), (torch, "save", "meta"), (GGUFWriter, "write_tensor_data", "gguf"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(StorageError, match=r"room to write.*it starts over"):
                run(folder, tmp_path / "out", to)
        assert list(tmp_path.iterdir()) == [folder]


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
