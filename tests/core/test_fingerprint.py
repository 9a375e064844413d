"""Equal content has equal fingerprints whatever its path; any other content has another."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import DataError
from puna.core.fingerprint import hash_content, hash_file, hash_json

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_empty_file_has_the_known_hash(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty") == hash_content(tmp_path / "empty") == EMPTY


def test_folders_are_their_names_and_contents(tmp_path: Path) -> None:
    first = make(tmp_path / "1", {"a/x": b"1", "b": b"2"})
    assert hash_content(first) == hash_content(make(tmp_path / "2", {"b": b"2", "a/x": b"1"}))
    others = [{"a/x": b"1"}, {"a/x": b"2", "b": b"1"}, {"a/y": b"1", "b": b"2"}, {"a/x": b"12", "b": b""}]
    hashes = {hash_content(make(tmp_path / f"other{i}", files)) for i, files in enumerate(others)}
    assert len(hashes | {hash_content(first)}) == 5


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: expected an existing file or folder"):
        hash_content(tmp_path / "absent")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), JSON, max_size=5))
def test_key_order_does_not_matter(value: dict[str, object]) -> None:
    assert hash_json(value) == hash_json(dict(reversed(value.items())))
