"""A GGUF from a stranger never costs more than its own size, and never anything but a named error."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gguf_files
from puna.core.errors import CheckpointError, RecipeError
from puna.model.config import ModelConfig
from puna.model.interop.gguf_header import read_header
from puna.model.interop.gguf_read import open_gguf
from puna.model.interop.gguf_write import write_gguf

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
HOSTILE = {
    "no magic": (b"GGML" + bytes(40), "begins with the letters GGUF"),
    "empty": (b"", "begins with the letters GGUF"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian, which is not read"),
    "many tensors": (a_file(n_tensors=2**60) + bytes(99), f"{2**60} tensors, got 107 bytes"),
    "many settings": (a_file(n_settings=2**63) + bytes(99), f"{2**63} settings, got 99 bytes"),
    "long name": (a_file(settings=struct.pack("<Q", 2**62), n_settings=1) + bytes(99), "before the file's end"),
    "long text": (
        a_file(settings=text("a") + struct.pack("<IQ", STRINGS, 2**40), n_settings=1) + bytes(9),
        f"{2**40} bytes for a",
    ),
    "long array": (
        a_file(settings=text("a") + struct.pack("<IIQ", ARRAY, UINT8, 2**61), n_settings=1) + bytes(9),
        f"{2**61} numbers in a",
    ),
    "many texts": (
        a_file(settings=text("a") + struct.pack("<IIQ", ARRAY, STRINGS, 2**50), n_settings=1) + bytes(9),
        f"{2**50} strings in a",
    ),
    "nested arrays": (
        a_file(settings=text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1), n_settings=1) + bytes(99),
        "an array of arrays",
    ),
    "unknown type": (a_file(settings=text("a") + struct.pack("<I", 77), n_settings=1) + bytes(9), "type 77"),
    "twice": (a_file(settings=(text("a") + struct.pack("<IB", 0, 1)) * 2, n_settings=2), "a twice"),
    "dimensions": (
        a_file(tensors=text("t") + struct.pack("<I", 2**31), n_tensors=1) + bytes(64),
        "1 to 4 dimensions of t",
    ),
    "huge tensor": (a_file(tensors=a_tensor("t", (2**40, 2**20)), n_tensors=1), "the end of t"),
    "no rows": (a_file(tensors=a_tensor("t", (4, 0)), n_tensors=1) + bytes(64), "t in whole blocks"),
    "half a block": (a_file(tensors=a_tensor("t", (33,), kind=8), n_tensors=1) + bytes(99), "blocks of 32"),
    "unknown format": (a_file(tensors=a_tensor("t", (4,), kind=999), n_tensors=1) + bytes(99), "format 999"),
    "beyond the end": (
        a_file(tensors=a_tensor("t", (4,), offset=2**62), n_tensors=1) + bytes(99), "the end of t"
    ),
    "unaligned": (a_file(tensors=a_tensor("t", (4,), offset=3), n_tensors=1) + bytes(99), "multiple of 32"),
    "shared bytes": (
        a_file(tensors=a_tensor("t", (16,)) + a_tensor("u", (16,), offset=32), n_tensors=2) + bytes(200),
        "u after t, got both in the same bytes",
    ),
    "alignment": (
        a_file(settings=text("general.alignment") + struct.pack("<II", 4, 0), n_settings=1), "a power of two"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_absurd_headers_are_refused_without_allocating(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as raised:
        read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert peak < 2**20


def read_all(path: Path) -> bool:
    """Whether the file is accepted; only our errors may come."""
    try:
        with open_gguf(path) as source:
            for name in source.tensors:
                assert source.read(name).isfinite().all()
    except RecipeError:
        return False
    return True


def test_the_whole_file_is_accepted_and_a_missing_one_named(small: bytes, scratch: Path) -> None:
    scratch.write_bytes(small)
    assert read_all(scratch)
    with pytest.raises(CheckpointError, match="No such file"):
        open_gguf(scratch.with_name("absent"))


@given(data=st.data())
def test_truncated_files_are_refused(small: bytes, scratch: Path, data: st.DataObject) -> None:
    scratch.write_bytes(small[: data.draw(st.integers(0, len(small) - 32 - 1))])
    assert not read_all(scratch)


@given(data=st.data())
def test_altered_bytes_give_only_our_errors(small: bytes, scratch: Path, data: st.DataObject) -> None:
    raw = bytearray(small)
    places = st.integers(0, len(raw) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        raw[place] = value
    scratch.write_bytes(raw)
    read_all(scratch)


def test_any_byte_of_the_header_may_be_altered(small: bytes, scratch: Path) -> None:
    """Every fourth of them, not a sample: what is accepted still holds finite numbers of the right shape."""
    for place in range(0, small.index(b"output_norm.weight"), 4):
        raw = bytearray(small)
        raw[place] ^= 0xFF
        scratch.write_bytes(raw)
        read_all(scratch)
