"""Paths, licence lines and rows of real inputs."""

import gzip
import json
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from puna.core.config import Settings
from puna.core.errors import ConfigError, DataError
from puna.core.inputs import (
    MISSING_LICENCE,
    OWN_LICENCE,
    InputSource,
    configured_inputs,
    licence_line,
    read_rows,
    require,
    resolve_path,
)


@pytest.mark.parametrize("text", ["PUNA_DATA/a/b.txt", "${PUNA_DATA}/a/b.txt", "$PUNA_DATA/a/b.txt"])
def test_the_variable_stands_for_its_folder(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PUNA_DATA", str(tmp_path))
    assert resolve_path(text) == tmp_path / "a" / "b.txt"


def test_other_paths_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUNA_DATA", raising=False)
    assert resolve_path("PUNA_DATABASE/x") == Path("PUNA_DATABASE/x")


def test_an_unset_variable_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUNA_DATA", raising=False)
    with pytest.raises(ConfigError, match="PUNA_DATA"):
        resolve_path("${PUNA_DATA}/books")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        require(tmp_path / "nowhere", "a folder")


def test_licence_is_read_beside_a_file_or_in_a_folder(tmp_path: Path) -> None:
    assert licence_line(tmp_path) == MISSING_LICENCE
    (tmp_path / "manifest.json").write_text("{}")
    assert licence_line(tmp_path) == OWN_LICENCE
    (tmp_path / "SOURCE.txt").write_text("a | licence: MIT\n\nb | licence: CC0\n")
    assert licence_line(tmp_path) == licence_line(tmp_path / "x.json") == "a | licence: MIT; b | licence: CC0"


def test_lists_and_lines_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"n": 1}, {"n": 2, "text": "é"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    with gzip.open(tmp_path / "rows.json.gz", "wt") as stream:
        json.dump(rows, stream)
    for name in ("rows.json", "rows.jsonl", "rows.json.gz"):
        assert list(read_rows(tmp_path / name)) == rows


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n' * 6 + '{"n": \n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 7"):
        list(read_rows(path))


@pytest.mark.parametrize("text", ["3", '["a"]', "{"])
def test_lists_of_anything_else_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=r"rows\.json"):
        list(read_rows(tmp_path / "rows.json"))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 999)[:-9])
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz"):
        list(read_rows(path))


class Source(InputSource):
    path: str | None = None

    def input_path(self) -> Path | None:
        if self.path is None:
            return None
        return require(resolve_path(self.path), f"the file of source {self.name}")


class Nest(Source):
    """A source made of sources."""

    inner: tuple[Source, ...] = ()


class Record(BaseModel):
    source: Source


class Everywhere(Settings):
    """Each field holds sources in another way."""

    plain: Source
    absent: Source | None = None
    several: tuple[Source, ...] = ()
    any_order: frozenset[Source] = frozenset()
    nested: dict[str, tuple[Source, ...]] = Field(default_factory=dict)
    deep: "Everywhere | None" = None
    record: Record | None = None
    nest: Nest | None = None
    text: str = "some text"
    raw: bytes = b"bytes"
    numbers: tuple[int, ...] = (1, 2)


def test_sources_are_read_from_anywhere_in_settings(tmp_path: Path) -> None:
    def source(name: str) -> Source:
        (tmp_path / name).write_text(name)
        return Source(name=name, path=str(tmp_path / name))

    settings = Everywhere(
        plain=source("a"),
        several=(source("b"), source("c")),
        any_order=frozenset({source("l")}),
        nested={"x": (source("d"),), "y": (source("e"), source("f"))},
        deep=Everywhere(plain=source("g"), deep=Everywhere(plain=source("h"))),
        record=Record(source=source("i")),
        nest=Nest(name="j", path=source("j").path, inner=(source("k"),)),
    )
    assert dict(configured_inputs(settings)) == {name: tmp_path / name for name in "abcdefghijkl"}
    assert list(configured_inputs(settings)) == list(configured_inputs(settings.model_copy(deep=True)))


def test_a_source_that_reads_nothing_is_no_input() -> None:
    assert list(configured_inputs(Everywhere(plain=Source(name="a")))) == []
    assert list(configured_inputs(Settings())) == []


def test_two_sources_of_one_name_are_both_told(tmp_path: Path) -> None:
    """What reads them decides; a mapping would have forgotten one."""
    twins = [Source(name="a", path=str(tmp_path)), Source(name="a", path=str(Path(__file__)))]
    told = list(configured_inputs(Everywhere(plain=twins[0], several=(twins[1],))))
    assert told == [("a", tmp_path), ("a", Path(__file__))]


def test_a_configured_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = Everywhere(plain=Source(name="a", path=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="nowhere: expected the file of source a"):
        list(configured_inputs(settings))


def test_a_source_says_itself_where_its_content_is() -> None:
    with pytest.raises(TypeError, match="abstract method"):
        InputSource(name="a")
