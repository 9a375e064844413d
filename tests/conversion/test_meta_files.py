"""A .pth of torch's is read as it is; a hostile one runs nothing, unfolds to nothing, and is one clear error."""

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.conversion.meta_files import load_shard
from puna.core.errors import CheckpointError

TENSORS = {
    "a": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "b": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "c": torch.randn(33, generator=torch.Generator().manual_seed(2)).half(),
    "rows": torch.arange(40.0).view(10, 4)[2:7],
}


def saved(path: Path, values: object, **options: object) -> Path:
    torch.save(values, path, **options)
    return path


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    loaded = load_shard(saved(tmp_path / "x.pth", TENSORS))
    assert list(loaded) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_state_dictionaries_and_parameters_are_read(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    for values in (
        module.state_dict(),
        dict(module.named_parameters()),
        collections.OrderedDict(module.state_dict()),
    ):
        loaded = load_shard(saved(tmp_path / "x.pth", values))
        assert torch.equal(loaded["weight"], module.weight.detach())
        assert not loaded["weight"].requires_grad


class Attack:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_nothing_runs(tmp_path: Path) -> None:
    """One message that names the function, and none of torch's advice to load the file all the same."""
    attack, marker = Attack(tmp_path / "it-ran"), tmp_path / "it-ran"
    for protocol in (2, 3, 4, 5):
        for values in ({"a": attack}, attack, {"a": torch.ones(1), "b": [attack]}):
            path = saved(tmp_path / "bad.pth", values, pickle_protocol=protocol)
            with pytest.raises(CheckpointError) as raised:
                load_shard(path)
            message = str(raised.value)
            assert "\n" not in message
            assert "False" not in message
            if protocol < 4:  # later ones are refused for their instructions already
                assert "nothing but tensors, got unsupported GLOBAL posix.system" in message
    assert not marker.exists()
    path.write_bytes(pickle.dumps({"a": attack}))
    with pytest.raises(CheckpointError, match=r"torch 1\.6 or later"):
        load_shard(path)
    assert not marker.exists()


def repacked(path: Path, **changes: bytes | None) -> bytes:
    """The archive of a .pth with records replaced or, for None, left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = changes.get(entry.filename.rpartition("/")[2].replace(".", "_"), old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return buffer.getvalue()


def compressed(path: Path, name: str) -> bytes:
    """A bomb: one record of zeros that unfolds to 200 MB from 200 kB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            is_bomb = entry.filename.endswith(name)
            new.writestr(entry.filename, bytes(200_000_000) if is_bomb else old.read(entry))
    return buffer.getvalue()


def older(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def grown(path: Path) -> bytes:
    """An index that promises a tensor and a record larger than the file."""
    with zipfile.ZipFile(path) as archive:
        index = archive.read("x/data.pkl")
    assert b"K#t" in index  # 35 elements
    assert b"K\x05K\x07\x86" in index  # 5 rows of 7
    huge = b"J\x00\x00\x00\x7f"
    index = index.replace(b"K#t", huge + b"t").replace(b"K\x05K\x07\x86", huge + b"K\x07\x86")
    return repacked(path, data_pkl=index)


def meta(path: Path) -> bytes:
    """A tensor of a terabyte that has no data."""
    return saved(path.with_name("meta.pth"), {"w": torch.empty(2**38, device="meta")}).read_bytes()


def of(values: object) -> Callable[[Path], bytes]:
    return lambda path: saved(path.with_name("other.pth"), values).read_bytes()


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "compressed record": (lambda path: compressed(path, "/0"), "records that are not compressed"),
    "compressed index": (lambda path: compressed(path, "data.pkl"), "records that are not compressed"),
    "older form": (older, "torch 1.6 or later"),
    "grown": (grown, "nothing but tensors"),
    "no data": (meta, "w stored row by row, got .*meta"),
    "record missing": (lambda path: repacked(path, **{"0": None}), "nothing but tensors"),
    "no index": (lambda path: repacked(path, data_pkl=None), "nothing but tensors"),
    "empty": (lambda path: b"", "torch 1.6 or later"),
    "truncated": (lambda path: path.read_bytes()[:-200], "torch 1.6 or later"),
    "a list": (of([torch.ones(2, 3)]), "a dictionary of tensors, got list"),
    "a tensor": (of(torch.ones(2, 3)), "a dictionary of tensors, got Tensor"),
    "training state": (of({"model": {"w": torch.ones(1)}}), "a tensor under the name 'model', got dict"),
    "a number": (of({"step": 3}), "under the name 'step', got int"),
    "a numbered tensor": (of({7: torch.ones(1)}), "under the name '7'"),
    "transposed": (of({"w": torch.ones(4, 3).T}), "w stored row by row"),
    "expanded": (of({"w": torch.ones(1, 3).expand(10**9, 3)}), "w stored row by row"),
    "sparse": (of({"w": torch.eye(3).to_sparse()}), "w stored row by row|nothing but tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    make, message = HOSTILE[case]
    content = make(saved(tmp_path / "x.pth", TENSORS))
    bad = tmp_path / "bad.pth"
    bad.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_shard(bad)
    assert str(raised.value).startswith(f"{bad}: ")
    assert len(str(raised.value)) < 500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a \.pth file, got No such file"):
        load_shard(tmp_path / "x.pth")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(tmp_path_factory.mktemp("valid") / "x.pth", TENSORS).read_bytes()


@settings(max_examples=300)
@given(st.data())
def test_random_damage_never_escapes(
    valid: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flipped bytes and cuts give our error, or tensors no larger than the file."""
    damaged = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(damaged)
    try:
        shard = load_shard(path)
    except CheckpointError:
        return
    for tensor in shard.values():
        assert tensor.nbytes <= len(damaged)
        tensor.clone()  # every byte of it can be read
