"""Sources: their files, limits, licences, and the real ones where PUNA_DATA names them."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from puna.core.errors import DataError
from puna.pretraining_data.filters import FilterConfig, judge
from puna.pretraining_data.sources import (
    STDLIB_LICENCE,
    SourceConfig,
    read_source,
    source_files,
    source_licence,
)


def toy(path: Path, **settings: object) -> SourceConfig:
    return SourceConfig(name="toy", reader="plain_text", path=str(path), **settings)


def test_files_come_in_order_and_source_notes_are_no_text(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "SOURCE.txt", "c.bin"):
        (tmp_path / name).write_text(name)
    pages = list(read_source(toy(tmp_path)))
    assert [(page.id, page.text, page.source) for page in pages] == [
        ("toy/a.txt/0", "a.txt", "toy"),
        ("toy/b.txt/0", "b.txt", "toy"),
    ]
    assert source_licence(toy(tmp_path)) == "SOURCE.txt"


def test_a_byte_limit_takes_from_every_file(tmp_path: Path) -> None:
    page = "The goat eats hay. " * 110
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (tmp_path / name).write_text("\n\n".join([page] * 10))
    pages = list(read_source(toy(tmp_path, max_bytes=25_000)))
    assert Counter(page.id.split("/")[1] for page in pages) == {
        "a.txt": 3,
        "b.txt": 3,
        "c.txt": 3,
        "d.txt": 3,
    }
    assert 25_000 <= sum(len(page.text) for page in pages) < 25_000 + len(page)


def test_a_missing_folder_and_an_empty_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        source_files(toy(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"\*\.txt"):
        source_files(toy(tmp_path))


def test_path_and_reader_go_together() -> None:
    for wrong in ({"reader": "tex"}, {"path": "x"}, {"reader": "python_stdlib", "path": "x"}):
        with pytest.raises(ValidationError, match="path"):
            SourceConfig(name="a", **wrong)


def test_the_standard_library_is_a_source() -> None:
    source = SourceConfig(name="code", reader="python_stdlib", is_prose=False, max_bytes=200_000)
    pages = list(read_source(source))
    assert 200_000 <= sum(len(page.text.encode()) for page in pages) < 205_000
    assert [page.id for page in pages] == [page.id for page in read_source(source)]
    assert len({page.id.split("/")[1] for page in pages}) > 20
    assert source_licence(source) == STDLIB_LICENCE


REAL = {
    "gutenberg": "books",
    "wikitext": "wikitext2",
    "stackexchange": "stackexchange",
    "tex": "maths_tex",
    "json_lines": "web_c4",
    "stories": "tinystories",
    "warc": "warc",
}


@pytest.mark.real
@pytest.mark.parametrize("reader", REAL)
def test_real_sources_are_read_and_mostly_kept(reader: str) -> None:
    is_prose = reader != "tex"
    source = SourceConfig(
        name="real",
        reader=reader,
        path=f"${{PUNA_DATA}}/pretraining/{REAL[reader]}",
        is_prose=is_prose,
        max_bytes=150_000,
    )
    pages = list(read_source(source))
    assert len(pages) > 10
    assert not any("Project Gutenberg License" in page.text for page in pages)
    verdicts = judge(pages, FilterConfig(), is_prose=lambda name: is_prose)
    n_kept = sum(verdict.reason is None for verdict in verdicts)
    # A limit takes the first pages of each book, contents and lists among them.
    assert n_kept > (0.6 if reader in ("warc", "gutenberg") else 0.8) * len(pages)
    assert "licence" in source_licence(source)
