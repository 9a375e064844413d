"""A GGUF from a stranger never costs more than its own size, and never anything but a named error."""

import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gguf_files
from gguf_files import gguf_name
from puna.conversion import gguf_file
from puna.conversion.gguf_file import GGUFFile, read_gguf, shape_of
from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_write import write_gguf
from puna.core.errors import CheckpointError, RecipeError
from puna.model.config import ModelConfig

SMALL = ModelConfig(dim=8, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=5, hidden_dim=6, max_seq_len=16)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(gguf_files.MemorySource(SMALL, gguf_files.random_values(SMALL)), path, dtype="f32")
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.gguf"


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def a_file(*, settings: bytes = b"", n_settings: int = 0, tensors: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_settings) + settings + tensors


def a_tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


STRINGS, ARRAY, UINT8 = 8, 9, 0
PROMISED = "bytes are promised, the file has"
NEST = struct.pack("<IQ", ARRAY, 1)
HOSTILE = {
    "no magic": (b"GGML" + bytes(40), "magic invalid"),
    "empty": (b"", "a whole GGUF file"),
    "four bytes": (b"GGUF", PROMISED),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 "),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "a little-endian GGUF file"),
    "many tensors": (a_file(n_tensors=2**60) + bytes(99), PROMISED),
    "many settings": (a_file(n_settings=2**63) + bytes(99), "Duplicate"),
    "long name": (a_file(settings=struct.pack("<Q", 2**62), n_settings=1) + bytes(99), PROMISED),
    "long text": (
        a_file(settings=text("a") + struct.pack("<IQ", STRINGS, 2**40), n_settings=1) + bytes(9), PROMISED
    ),
    "long array": (
        a_file(settings=text("a") + struct.pack("<IIQ", ARRAY, UINT8, 2**61), n_settings=1) + bytes(9),
        PROMISED,
    ),
    "many texts": (
        a_file(settings=text("a") + struct.pack("<IIQ", ARRAY, STRINGS, 2**50), n_settings=1) + bytes(9),
        PROMISED,
    ),
    "nested arrays": (
        a_file(settings=text("a") + struct.pack("<I", ARRAY) + NEST * 2000, n_settings=1) + bytes(99),
        "RecursionError",
    ),
    "unknown type": (a_file(settings=text("a") + struct.pack("<I", 77), n_settings=1) + bytes(9), "77"),
    "no UTF-8": (a_file(settings=text("a") + struct.pack("<IQ", STRINGS, 1), n_settings=1) + b"\xff", "utf-8"),
    "twice": (a_file(settings=(text("a") + struct.pack("<IB", 0, 1)) * 2, n_settings=2), "Duplicate a"),
    "dimensions": (a_file(tensors=text("t") + struct.pack("<I", 2**31), n_tensors=1) + bytes(64), PROMISED),
    "huge tensor": (a_file(tensors=a_tensor("t", (2**40, 2**20)), n_tensors=1), PROMISED),
    "a product beyond 64 bits": (
        a_file(tensors=a_tensor("t", (2**32, 2**32)), n_tensors=1) + bytes(99), "reshape"
    ),
    "half a block": (a_file(tensors=a_tensor("t", (33,), kind=8), n_tensors=1) + bytes(99), "block size"),
    "unknown format": (a_file(tensors=a_tensor("t", (4,), kind=999), n_tensors=1) + bytes(99), "999"),
    "beyond the end": (a_file(tensors=a_tensor("t", (4,), offset=2**62), n_tensors=1) + bytes(99), PROMISED),
    "shared bytes": (
        a_file(tensors=a_tensor("t", (16,)) + a_tensor("u", (16,), offset=32), n_tensors=2) + bytes(200),
        "u after t, got both in the same bytes",
    ),
    "tensor twice": (a_file(tensors=a_tensor("t", (4,)) * 2, n_tensors=2) + bytes(200), "duplicated tensor"),
    "alignment": (
        a_file(settings=text("general.alignment") + struct.pack("<II", 4, 0), n_settings=1), "power of two"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_absurd_headers_are_refused_without_allocating(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message) as raised:
        read_gguf(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert peak < 4 * 2**20


def test_a_header_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number costs one byte in the file and hundreds in memory."""
    path = tmp_path / "model.gguf"
    numbers = text("a") + struct.pack("<IIQ", ARRAY, UINT8, 5000) + bytes(5000)
    path.write_bytes(a_file(settings=numbers, n_settings=1))
    assert len(read_gguf(path).metadata["a"]) == 5000
    monkeypatch.setattr(gguf_file, "MAX_READS", 4000)
    with pytest.raises(CheckpointError, match="more than 4000 entries"):
        read_gguf(path)


def read_all(path: Path) -> dict[str, torch.Tensor] | None:
    """Every tensor, or None where the file is refused; only our errors may come, and they say where and what."""
    refusal = None
    try:
        source = GGUFSource(path)
        found = {name: source.read(name) for name in source.tensors}
    except RecipeError as error:
        refusal = error
    if refusal is not None:
        assert refusal.where.startswith(str(path))
        assert refusal.expected != refusal.got
        return None
    assert all(tensor.isfinite().all() for tensor in found.values())
    return found


@dataclass(frozen=True)
class Whole:
    """The undamaged file: what it says and holds."""

    raw: bytes
    file: GGUFFile
    tensors: dict[str, torch.Tensor]

    @property
    def data_start(self) -> int:
        return min(stored.data_offset for stored in self.file.tensors.values())

    def is_hit(self, name: str, changed: set[int]) -> bool:
        stored = self.file.tensors[gguf_name(name)]
        return any(0 <= at - stored.data_offset < stored.n_bytes for at in changed)


@pytest.fixture(scope="module")
def whole(small: bytes, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = tmp_path_factory.mktemp("whole") / "model.gguf"
    path.write_bytes(small)
    tensors = read_all(path)
    assert tensors is not None
    return Whole(small, read_gguf(path), tensors)


def rows(file: GGUFFile) -> dict[str, object]:
    """The table of tensors."""
    return {
        name: (shape_of(tensor), tensor.tensor_type, tensor.data_offset)
        for name, tensor in file.tensors.items()
    }


def n_differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Entries that are not the same, in their order."""
    pairs = zip_longest(old.items(), new.items())
    return sum(repr(one) != repr(other) for one, other in pairs)


def check_damaged(whole: Whole, scratch: Path, raw: bytes) -> None:
    """A damaged file is refused, or all that its damage does not touch is what it was, bit for bit."""
    changed = {at for at, (old, new) in enumerate(zip(whole.raw, raw, strict=True)) if old != new}
    scratch.write_bytes(raw)
    found = read_all(scratch)
    if found is None:
        assert changed, "the undamaged file was refused"
        return
    file = read_gguf(scratch)
    n_settings = n_differing(whole.file.metadata, file.metadata)
    n_rows = n_differing(rows(whole.file), rows(file))
    in_header = sum(at < whole.data_start for at in changed)
    assert n_settings + n_rows <= in_header, "a byte changed more than one thing that the header says"
    for name, tensor in whole.tensors.items():
        is_turned = n_settings > 0 and name.endswith(
            ("q_proj.weight", "k_proj.weight")
        )  # by the number of heads
        is_same = rows(file).get(gguf_name(name)) == rows(whole.file)[gguf_name(name)]
        if is_same and name in found and not is_turned:
            is_equal = torch.equal(found[name].view(torch.int32), tensor.view(torch.int32))
            assert is_equal != whole.is_hit(name, changed), name


def test_the_whole_file_is_accepted_and_a_missing_one_named(small: bytes, scratch: Path) -> None:
    scratch.write_bytes(small)
    assert read_all(scratch) is not None
    with pytest.raises(CheckpointError, match="No such file"):
        GGUFSource(scratch.with_name("absent"))


@given(data=st.data())
def test_truncated_files_are_refused(small: bytes, scratch: Path, data: st.DataObject) -> None:
    scratch.write_bytes(small[: data.draw(st.integers(0, len(small) - 32 - 1))])
    assert read_all(scratch) is None


@given(data=st.data())
def test_altered_bytes_are_refused_or_change_only_what_they_are_of(
    whole: Whole, scratch: Path, data: st.DataObject
) -> None:
    raw = bytearray(whole.raw)
    places = st.integers(0, len(raw) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        raw[place] = value
    check_damaged(whole, scratch, bytes(raw))


@given(data=st.data())
def test_altered_numbers_change_one_tensor_or_are_refused(
    whole: Whole, scratch: Path, data: st.DataObject
) -> None:
    """A bit of the weights: nobody keeps checksums of them, so only what is not finite can be seen."""
    raw = bytearray(whole.raw)
    name = data.draw(st.sampled_from(sorted(whole.file.tensors)))
    stored = whole.file.tensors[name]
    place = stored.data_offset + data.draw(st.integers(0, stored.n_bytes - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    check_damaged(whole, scratch, bytes(raw))
    number = np.frombuffer(raw, "<f4", 1, stored.data_offset + (place - stored.data_offset) // 4 * 4)[0]
    assert (read_all(scratch) is None) == (not np.isfinite(number))


def test_any_byte_of_the_header_may_be_altered(whole: Whole, scratch: Path) -> None:
    """Every fourth of them, not a sample."""
    for place in range(0, whole.raw.index(b"output_norm.weight"), 4):
        raw = bytearray(whole.raw)
        raw[place] ^= 0xFF
        check_damaged(whole, scratch, bytes(raw))
