"""Fingerprints: sha256 over content, so that equal work is recognised whatever its path or date."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.core.errors import DataError

__all__ = ["hash_content", "hash_file", "hash_json"]


def hash_json(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_content(path: Path) -> str:
    """sha256 of a file, or of the relative names, sizes and contents of a folder's files.

    Raises:
        DataError: there is nothing at the path.
    """
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise DataError(
            where=str(path), expected="an existing file or folder", got="nothing there", fix="Check the path."
        )
    names: Mapping[str, Path] = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    return hash_json([[name, names[name].stat().st_size, hash_file(names[name])] for name in sorted(names)])
