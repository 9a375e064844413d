"""Records survive the disk, and a broken file is named with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import DataError
from puna.core.records import Comparison, Dialog, Document, Message, Side, read_records, write_records

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DOCUMENTS = st.lists(st.builds(Document, id=TEXT, text=TEXT, source=TEXT), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
@given(documents=DOCUMENTS)
def test_what_is_written_is_read(folder: Path, suffix: str, documents: list[Document]) -> None:
    path = folder / f"documents{suffix}"
    assert write_records(path, documents) == len(documents)
    assert list(read_records(path, Document)) == documents


def test_nested_records_survive(tmp_path: Path) -> None:
    messages = (Message(role="user", content="moo?"),)
    sides = {"chosen": Side(response="moo", shown_on="left"), "rejected": Side(response="")}
    pair = Comparison(id="1", prompt=messages, rating="better", **sides)
    write_records(tmp_path / "pairs.jsonl", [pair])
    assert list(read_records(tmp_path / "pairs.jsonl", Comparison)) == [pair]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "x"', "the line"),
        ('{"id": "x", "messages": [], "mesages": []}', "mesages"),
        ('{"id": "x", "messages": [{"role": "bot", "content": ""}]}', "messages.0.role"),
        ("[]", "the line"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    good = '{"id": "x", "messages": []}\n'
    (tmp_path / "d.jsonl").write_text(good * 6 + line + "\n" + good)
    with pytest.raises(DataError, match=r"d\.jsonl, line 7") as caught:
        list(read_records(tmp_path / "d.jsonl", Dialog))
    assert complaint in str(caught.value)


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('\n{"id": "x", "messages": []}\n\n')
    assert len(list(read_records(tmp_path / "d.jsonl", Dialog))) == 1


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_records(tmp_path / "absent.jsonl", Dialog))


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match="readable UTF-8"):
        list(read_records(tmp_path / "d.jsonl", Dialog))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_damaged_compression_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(b"not compressed at all")
    with pytest.raises(DataError, match="readable UTF-8"):
        list(read_records(path, Dialog))
