"""Paths, licence lines and rows of real inputs."""

import gzip
import json
from pathlib import Path

import pytest

from puna.core.errors import ConfigError, DataError
from puna.core.inputs import MISSING_LICENCE, OWN_LICENCE, licence_line, read_rows, require, resolve_path


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
