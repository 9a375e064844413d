"""The index of a .pth: what torch writes is read, anything that could run or unfold is refused."""

import collections
import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.conversion.pickled_index import read_index
from puna.core.errors import CheckpointError

HERE = Path("here.pth")


def index_of(values: object) -> bytes:
    """The pickle that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


def test_reads_what_torch_writes() -> None:
    whole = torch.arange(12.0).view(3, 4)
    tensors = {
        "a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.ones(5, dtype=torch.float16), "rows": whole[1:],
        "scalar": torch.tensor(1.0), "none": torch.ones(0, 4), "column": torch.ones(7, 1),
    }  # fmt: skip
    found = read_index(index_of(tensors), where=HERE)
    assert {name: (item.shape, item.dtype, item.offset) for name, item in found.items()} == {
        name: (tuple(t.shape), t.dtype, t.storage_offset()) for name, t in tensors.items()
    }
    assert found["rows"].record_size == 12


def test_reads_state_dictionaries_and_parameters() -> None:
    module = torch.nn.Linear(3, 2)
    for values in (
        module.state_dict(),
        dict(module.named_parameters()),
        collections.OrderedDict(module.state_dict()),
    ):
        assert read_index(index_of(values), where=HERE)["weight"].shape == (2, 3)


class Attack:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_nothing_runs(tmp_path: Path) -> None:
    attack = Attack(tmp_path / "it ran")
    for protocol in range(2, 6):
        for values in ({"a": attack}, attack, {"a": torch.ones(1), "b": [attack]}):
            data = pickle.dumps(values, protocol=protocol) if protocol > 2 else index_of(values)
            with pytest.raises(CheckpointError):
                read_index(data, where=HERE)
    assert list(tmp_path.iterdir()) == []


ONE = torch.ones(2, 3)
REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([ONE], "EMPTY_LIST"),
    "a tensor": (ONE, "a dictionary of tensors, got StoredTensor"),
    "training state": ({"model": {"w": ONE}}, "a tensor under the name 'model', got dict"),
    "a number": ({"step": 3}, "under the name 'step', got int"),
    "transposed": ({"w": torch.ones(4, 3).T}, "not stored row by row"),
    "expanded": ({"w": torch.ones(1, 3).expand(10**9, 3)}, "not stored row by row"),
    "integers": ({"w": torch.ones(3).long()}, "LongStorage"),
    "doubles": ({"w": torch.ones(3).double()}, "DoubleStorage"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "a call of torch.serialization _get_layout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_plain_dictionary_of_dense_tensors_is_refused(case: str) -> None:
    values, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message):
        read_index(index_of(values), where=HERE)


def test_a_tensor_may_not_reach_beyond_its_storage() -> None:
    data = index_of({"w": torch.ones(200, 3)})
    assert b"K\xc8K\x03\x86" in data
    with pytest.raises(CheckpointError, match=r"beyond its storage of 600"):
        read_index(data.replace(b"K\xc8K\x03\x86", b"K\xc9K\x03\x86"), where=HERE)


def test_a_pickle_that_would_take_forever_ends_at_once() -> None:
    """Sixty tuples, each of the last one twice: hashing or printing it would take 2 ** 60 steps."""
    bomb = b"\x80\x02)" + b"q\x00h\x00h\x00\x86" * 60
    for ending in (b"}q\x01h\x01h\x00K\x01s.", b"}h\x00K\x01s.", b"."):
        with pytest.raises(CheckpointError):
            read_index(bomb + ending, where=HERE)
    huge_memo = b"\x80\x02}r\xff\xff\xff\xff."  # C unpicklers allocate an array for this index
    assert read_index(huge_memo, where=HERE) == {}


VALID = index_of({f"layer.{i}": torch.ones(2, i + 1) for i in range(4)})


@settings(max_examples=400)
@given(st.data())
def test_any_damage_is_a_clear_error_or_a_valid_index(data: st.DataObject) -> None:
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        found = read_index(bytes(damaged), where=HERE)
    except CheckpointError:
        return
    assert all(len(item.shape) < 5 for item in found.values())


def test_the_fuzzed_pickle_is_a_real_one() -> None:
    assert {opcode.name for opcode, _, _ in pickletools.genops(VALID)} >= {"BINPERSID", "REDUCE", "SETITEMS"}
    assert len(read_index(VALID, where=HERE)) == 4
