"""Reading token shards: across files, by window, and refusing what is broken."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import DataError
from puna.training.token_shards import TokenStream, read_index, shard_dtype


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens 0 .. 99 in three files, one of them empty, and a validation file."""
    folder = tmp_path_factory.mktemp("data")
    write(folder, [range(30), range(30, 30), range(30, 100)], {"farm": range(7)})
    return folder


def write(folder: Path, train: list[range], validation: dict[str, range]) -> None:
    shards = folder / "shards"
    shards.mkdir()
    files = {f"train-{i:05d}.bin": tokens for i, tokens in enumerate(train)}
    for name, tokens in [*files.items(), *((f"{s}.bin", t) for s, t in validation.items())]:
        (shards / name).write_bytes(np.array(tokens, dtype="<u2").tobytes())
    index = {
        "dtype": "uint16",
        "train": [{"file": name, "n_tokens": len(tokens)} for name, tokens in files.items()],
        "validation": {s: {"file": f"{s}.bin", "n_tokens": len(t)} for s, t in validation.items()},
    }
    (shards / "index.json").write_text(json.dumps(index))


def stream(data: Path) -> TokenStream:
    index = read_index(data)
    return TokenStream(data, index.train, index.dtype)


@given(start=st.integers(0, 99), n_tokens=st.integers(1, 120))
def test_any_slice_is_that_of_the_joined_files(data: Path, start: int, n_tokens: int) -> None:
    assert stream(data).read(start, n_tokens).tolist() == list(range(100))[start : start + n_tokens]


@pytest.mark.parametrize("seq_len", [1, 9, 33, 99])
def test_every_token_but_the_first_is_a_target_at_most_once(data: Path, seq_len: int) -> None:
    tokens = stream(data)
    n_windows = tokens.n_windows(seq_len)
    windows = tokens.windows(range(n_windows), seq_len)
    targets = windows[:, 1:].flatten().tolist()
    assert targets == list(range(1, 1 + n_windows * seq_len))
    assert 99 - len(targets) < seq_len
    assert torch.equal(windows[:, 1:] - windows[:, :-1], torch.ones_like(windows[:, 1:]))


def test_no_window_fits_a_short_stream(data: Path) -> None:
    assert stream(data).n_windows(100) == 0


def test_width_follows_the_vocabulary() -> None:
    assert (shard_dtype(65_536), shard_dtype(65_537)) == ("uint16", "uint32")


def test_a_missing_index_says_which_stage_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenize stage"):
        read_index(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, [range(10)], {})
    path = tmp_path / "shards" / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"train-00000.bin: expected 20 bytes, got 18 bytes"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"dtype": "int8", "train": [], "validation": {}}'])
def test_a_broken_index_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index.json"):
        read_index(tmp_path)
