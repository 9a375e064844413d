"""The named sources of a corpus: which files, under which licence, how many bytes, how often seen."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from puna.core.errors import DataError
from puna.core.inputs import InputSource, licence_line, require, resolve_path
from puna.core.records import Document
from puna.pretraining_data.readers import READERS

__all__ = ["ReaderName", "SourceConfig", "read_source", "source_files", "source_licence"]

ReaderName = Literal[
    "gutenberg", "wikitext", "stackexchange", "tex", "json_lines", "plain_text", "stories", "warc", "python",
    "python_stdlib",
]  # fmt: skip

STDLIB_LICENCE = "PSF-2.0: the standard library of the Python that runs this"
STDLIB_PACKAGES = ("asyncio", "collections", "concurrent", "email", "html", "http", "importlib", "json", "logging",
                   "multiprocessing", "pydoc_data", "re", "sqlite3", "tomllib", "unittest", "urllib", "xml",
                   "zoneinfo")  # fmt: skip
"""Subfolders of the standard library that are read besides its top level: code people import, no tables."""


class SourceConfig(InputSource):
    """One source of pages."""

    name: str
    """What reports call it; documents of a given .jsonl belong to the source they name."""
    reader: ReaderName | None = None
    """How its files are read; None for a source whose pages come with the given documents."""
    path: str | None = None
    """File or folder; may start with ${PUNA_DATA}. python_stdlib needs none."""
    weight: float = Field(default=1.0, ge=0)
    """Passes over it in the mixture; above 1 up-samples (§2.1 does so for the most factual sources)."""
    is_prose: bool = True
    """Language and quality rules apply; False for code and TeX, which they would misjudge."""
    max_bytes: int | None = Field(default=None, ge=1)
    """UTF-8 bytes of text after which no further page is taken, spread over its files; None takes all."""

    @model_validator(mode="after")
    def _path_fits_reader(self) -> "SourceConfig":
        needs_path = self.reader not in (None, "python_stdlib")
        if needs_path != (self.path is not None):
            raise ValueError(f"source {self.name} {'needs a path' if needs_path else 'takes no path'}")
        return self

    def input_path(self) -> Path | None:
        """The source's file or folder; None where its pages come with the given documents.

        For the standard library that is pydoc's topics, made anew for each release of Python.

        Raises:
            DataError: the folder is missing or holds no file that the reader reads.
        """
        if self.reader is None:
            return None
        files = source_files(self)
        return files[0] if self.reader == "python_stdlib" else resolve_path(self.path or "")


def source_files(config: SourceConfig) -> list[Path]:
    """The source's files in the order they are read.

    Raises:
        DataError: the folder is missing or holds no such file.
    """
    if config.reader == "python_stdlib":
        return _stdlib_files()
    path = require(resolve_path(config.path or ""), f"the files of source {config.name}")
    if path.is_file():
        return [path]
    patterns = READERS[config.reader or ""].patterns
    files = {file for pattern in patterns for file in path.rglob(pattern) if file.name != "SOURCE.txt"}
    if not files:
        expected = f"files named {' or '.join(patterns)} for source {config.name}"
        raise DataError(where=str(path), expected=expected, got="none", fix="Check path and reader.")
    return sorted(files)


def source_licence(config: SourceConfig) -> str:
    """The licence line that the source's own folder states."""
    return (
        STDLIB_LICENCE if config.reader == "python_stdlib" else licence_line(resolve_path(config.path or ""))
    )


def read_source(config: SourceConfig) -> Iterator[Document]:
    """Yield the source's pages, file by file; a byte limit is shared among files in proportion to their size."""
    files = source_files(config)
    texts = READERS["python" if config.reader == "python_stdlib" else config.reader or ""].texts
    sizes = [file.stat().st_size for file in files]
    n_bytes = 0
    for index, file in enumerate(files):
        share = sum(sizes[: index + 1]) / max(1, sum(sizes))
        for number, text in enumerate(texts(file)):
            if config.max_bytes is not None and n_bytes >= config.max_bytes * share:
                break
            n_bytes += len(text.encode())
            yield Document(id=f"{config.name}/{_label(config, file)}/{number}", text=text, source=config.name)


def _label(config: SourceConfig, file: Path) -> str:
    """The file's name in a page's id: its path within the source's folder."""
    root = _stdlib_root() if config.reader == "python_stdlib" else resolve_path(config.path or "")
    return file.relative_to(root).as_posix() if file != root else file.name


def _stdlib_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _stdlib_files() -> list[Path]:
    """Python files of the installed standard library, pydoc's documentation first, then by name."""
    root = _stdlib_root()
    topics = root / "pydoc_data" / "topics.py"
    files = set(root.glob("*.py"))
    for package in STDLIB_PACKAGES:
        files.update((root / package).rglob("*.py"))
    return [topics] * topics.is_file() + sorted(files - {topics})
