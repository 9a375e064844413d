"""The archive around the index: written ones load everywhere, hostile ones stop at the door."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.conversion.pth import PthFile
from puna.conversion.pth_writer import PthPlan
from puna.conversion.stream import TensorInfo
from puna.core.errors import CheckpointError

TENSORS = {
    "a": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "b": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "c": torch.randn(33, generator=torch.Generator().manual_seed(2)).half(),
}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> PthPlan:
    plan = PthPlan({name: TensorInfo(tuple(t.shape), t.dtype) for name, t in tensors.items()})
    plan.begin(path)
    with path.open("r+b") as file:
        for name, tensor in tensors.items():
            file.seek(plan.offsets[name])
            file.write(tensor.view(torch.uint8).numpy().tobytes())
    plan.finish(path)
    return plan


def assert_holds(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    file = PthFile(path)
    assert file.tensors == {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in tensors.items()}
    for name, tensor in tensors.items():
        assert torch.equal(file.rows(name, 0, len(tensor)), tensor)
        assert torch.equal(file.rows(name, 1, len(tensor) - 2), tensor[1:-1])
    file.close()


def test_written_files_load_in_torch_and_unzip(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    plan = write(path, TENSORS)
    assert path.stat().st_size == plan.n_bytes
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)
        assert list(loaded) == list(TENSORS)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
        assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in loaded.values())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None  # every checksum is right
    assert all(offset % 64 == 0 for offset in plan.offsets.values())
    assert_holds(path, TENSORS)


def test_torchs_own_files_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.pth")
    assert_holds(tmp_path / "x.pth", TENSORS)
    whole = torch.arange(40.0).view(10, 4)
    torch.save({"rows": whole[2:7]}, tmp_path / "view.pth")
    assert_holds(tmp_path / "view.pth", {"rows": whole[2:7]})


def test_sizes_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Record sizes and offsets that 32 bits cannot hold, in a file that is mostly a hole."""
    path = tmp_path / "x.pth"
    shapes = {"first": (5 * 2**28, 4), "second": (3,)}
    plan = PthPlan({name: TensorInfo(shape, torch.float32) for name, shape in shapes.items()})
    plan.begin(path)
    with path.open("r+b") as file:
        file.seek(plan.offsets["second"])
        file.write(torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes())
    assert path.stat().st_size > 20 * 2**30
    assert path.stat().st_blocks * 512 < 2**20
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("consolidated/data/0").file_size == 20 * 2**30
    file = PthFile(path)
    assert file.tensors["first"].shape == shapes["first"]
    assert file.rows("second", 0, 3).tolist() == [1.0, 2.0, 3.0]
    assert file.rows("first", 5 * 2**28 - 1, 1).tolist() == [[0.0] * 4]
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["second"].tolist() == [1.0, 2.0, 3.0]


def repacked(path: Path, **changes: bytes | None) -> bytes:
    """The archive of a .pth with records replaced or, for None, left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = changes.get(entry.filename.rpartition("/")[2].replace(".", "_"), old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return buffer.getvalue()


def compressed(path: Path) -> bytes:
    """A bomb: one record of zeros that unfolds to 200 MB from 200 kB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(
                entry.filename, bytes(200_000_000) if entry.filename.endswith("/0") else old.read(entry)
            )
    return buffer.getvalue()


def overlapping(path: Path) -> bytes:
    """Two hundred entries of the directory that all name the record with the most bytes."""
    big = io.BytesIO()
    torch.save({"a": torch.ones(10_000)}, big)
    content = bytearray(big.getvalue())
    with zipfile.ZipFile(big) as archive:
        entry = archive.getinfo("archive/data/0")
        start = archive.start_dir
    name = b"archive/data/0"
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, entry.CRC, 40_000, 40_000, len(name), 0, 0, 0, 0, 0,
        entry.header_offset,
    ) + name  # fmt: skip
    directory = bytes(content[start : content.rfind(b"PK\x06\x06")]) + central * 200
    n = 200 + len(zipfile.ZipFile(big).infolist())
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, len(directory), start, 0)
    return bytes(content[:start]) + directory + end


def long_directory(path: Path) -> bytes:
    """An end record that says the table of contents has 40 MB."""
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, 40 * 2**20, 0, 0)
    return bytes(40 * 2**20) + end


def older(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def grown(path: Path) -> bytes:
    """An index that promises more elements than the record has."""
    with zipfile.ZipFile(path) as archive:
        index = archive.read("x/data.pkl")
    assert b"K#t" in index  # 35 elements
    return repacked(path, data_pkl=index.replace(b"K#t", b"J\x00\x00\x00\x7ft"))


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "compressed": (compressed, "records that are not compressed"),
    "overlapping": (overlapping, "overlapping"),
    "long directory": (long_directory, "table of contents larger"),
    "older form": (older, "torch 1.6 or later"),
    "grown": (grown, r"8,522,825,728 bytes for a|beyond"),
    "record missing": (
        lambda path: repacked(path, **{"0": None}),
        "bytes for a, as the index says, got no such",
    ),
    "record short": (
        lambda path: repacked(path, **{"0": b"abc"}),
        "140 bytes for a, as the index says, got 3",
    ),
    "no index": (lambda path: repacked(path, data_pkl=None), "one data.pkl"),
    "long index": (lambda path: repacked(path, data_pkl=bytes(3 * 2**20)), "one data.pkl of at most"),
    "big-endian": (lambda path: repacked(path, byteorder=b"big"), "byteorder little"),
    "pickle": (lambda path: pickle.dumps({"a": 1}), "a whole .pth file"),
    "empty": (lambda path: b"", "a whole .pth file"),
    "truncated": (lambda path: path.read_bytes()[:-200], "a whole .pth file"),
    "cut in front": (
        lambda path: path.read_bytes()[300:],
        "a whole .pth file|none at its place|the end of the file",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    torch.save(TENSORS, tmp_path / "x.pth")
    make, message = HOSTILE[case]
    bad = tmp_path / "bad.pth"
    bad.write_bytes(make(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match=message):
        PthFile(bad)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a \.pth file, got No such file"):
        PthFile(tmp_path / "x.pth")


def test_a_file_cut_while_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    plan = write(path, TENSORS)
    file = PthFile(path)
    with path.open("r+b") as cut:
        cut.truncate(plan.offsets["a"] + 8)
    with pytest.raises(CheckpointError, match="all of a, got the end"):
        file.rows("a", 0, 5)
    file.close()


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "x.pth"
    torch.save(TENSORS, path)
    return path.read_bytes()


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
        file = PthFile(path)
    except CheckpointError:
        return
    assert sum(info.n_bytes for info in file.tensors.values()) <= 3 * len(damaged)
    for name, info in file.tensors.items():
        if info.shape:
            file.rows(name, 0, info.shape[0])
    file.close()
