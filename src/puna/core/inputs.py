"""Where real input files are found and read: the folder of PUNA_DATA, licence lines, rows of JSON."""

import gzip
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from puna.core.config import Settings
from puna.core.errors import ConfigError, DataError
from puna.core.records import open_text

__all__ = ["InputSource", "configured_inputs", "licence_line", "read_rows", "require", "resolve_path"]

VARIABLE = "PUNA_DATA"
PREFIXES = ("${PUNA_DATA}", "$PUNA_DATA", VARIABLE)
MISSING_LICENCE = "not stated: no SOURCE.txt beside the data"
OWN_LICENCE = "made by this recipe, not taken from elsewhere"


class InputSource(Settings):
    """Settings that name a file or folder to read; a stage whose settings hold one has it as an input."""

    name: str
    """What reports call it."""

    @abstractmethod
    def input_path(self) -> Path | None:
        """The file or folder whose content stands for the source in fingerprints; None reads nothing.

        Raises:
            RecipeError: it is not there.
        """


def configured_inputs(settings: object) -> Iterator[tuple[str, Path]]:
    """Name and path of every source anywhere in settings."""
    if isinstance(settings, InputSource) and (path := settings.input_path()) is not None:
        yield settings.name, path
    if isinstance(settings, BaseModel):
        for name in type(settings).model_fields:
            yield from configured_inputs(getattr(settings, name))
    elif isinstance(settings, Mapping):
        for value in settings.values():
            yield from configured_inputs(value)
    elif isinstance(settings, Sequence | Set) and not isinstance(settings, str | bytes):
        for value in settings:
            yield from configured_inputs(value)


def resolve_path(text: str) -> Path:
    """The path a recipe means; a leading PUNA_DATA or ${PUNA_DATA} stands for the folder that variable names.

    Raises:
        ConfigError: the variable is needed and not set.
    """
    for prefix in PREFIXES:
        rest = text.removeprefix(prefix)
        if rest == text or (rest and not rest.startswith("/")):
            continue
        folder = os.environ.get(VARIABLE)
        if not folder:
            raise ConfigError(
                where=f"path {text!r}",
                expected=f"the environment variable {VARIABLE} to name the data folder",
                got="it is not set",
                fix=f"Set it, for example: export {VARIABLE}=/path/to/data",
            )
        return Path(folder) / rest.lstrip("/")
    return Path(text).expanduser()


def require(path: Path, what: str) -> Path:
    """The same path, when something is there.

    Raises:
        DataError: nothing is there.
    """
    if not path.exists():
        raise DataError(where=str(path), expected=what, got="no such file or folder", fix="Check the path.")
    return path


def licence_line(path: Path) -> str:
    """The licence as SOURCE.txt, in the data's own folder, states it; several lines are joined."""
    folder = path if path.is_dir() else path.parent
    source = folder / "SOURCE.txt"
    if not source.is_file():
        return OWN_LICENCE if (folder / "manifest.json").is_file() else MISSING_LICENCE
    lines = (line.strip() for line in source.read_text(encoding="utf-8").splitlines())
    return "; ".join(line for line in lines if line) or MISSING_LICENCE


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list (.json) or of JSON Lines (.jsonl), either of them perhaps gzipped.

    Raises:
        DataError: the file is missing or damaged, or a row is no JSON object; names file and line or row.
    """
    require(path, "a file of JSON objects")
    is_list = path.name.removesuffix(".gz").endswith(".json")
    try:
        yield from _list_rows(path) if is_list else _line_rows(path)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            where=str(path), expected="readable UTF-8 text", got=str(error), fix="Restore the file."
        ) from None


def _list_rows(path: Path) -> Iterator[dict[str, Any]]:
    with open_text(path) as stream:
        rows = _parse(stream.read(), str(path))
    if not isinstance(rows, list):
        raise _broken(str(path), "a list of objects", type(rows).__name__)
    for number, row in enumerate(rows, start=1):
        yield _object(row, f"{path}, row {number}")


def _line_rows(path: Path) -> Iterator[dict[str, Any]]:
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield _object(_parse(line, where), where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _broken(where, "valid JSON", str(error)) from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise _broken(where, "a JSON object", type(row).__name__)
    return row


def _broken(where: str, expected: str, got: str) -> DataError:
    return DataError(where=where, expected=expected, got=got, fix="Correct or remove this row.")
