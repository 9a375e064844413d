"""What a report is made of: sections that hold paragraphs, tables, drawings and example answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

__all__ = [
    "DASH",
    "Block",
    "Cell",
    "Drawing",
    "Examples",
    "Paragraph",
    "Section",
    "Table",
    "percent",
    "plain",
    "seconds",
]

DASH = "\u2013"
"""Stands in a table where there is no number, and between the ends of an interval."""

MAX_NUMBER_CHARS = 24
"""A longer cell is text."""


@dataclass(frozen=True)
class Cell:
    """One table cell: a value and, in smaller type, what qualifies it (an interval, a count)."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def text_columns(self) -> frozenset[int]:
        """Columns that hold running text, which may wrap, where the others hold numbers."""
        wide = (
            i for row in self.rows for i, cell in enumerate(row) if i and len(cell.text) > MAX_NUMBER_CHARS
        )
        return frozenset(wide)


@dataclass(frozen=True)
class Drawing:
    """A figure; alt says in words what it shows, for those who cannot see it."""

    name: str
    figure: Figure
    caption: str
    alt: str
    wide: bool = False

    @property
    def file_name(self) -> str:
        """Of its picture: the name with everything but letters, digits, dash and underscore replaced."""
        return re.sub(r"[^\w-]", "-", self.name, flags=re.ASCII) + ".png"


@dataclass(frozen=True)
class Examples:
    """What each version answered to one prompt."""

    group: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str, str], ...]
    """Version, answer, verdict."""


Block = Paragraph | Table | Drawing | Examples


@dataclass(frozen=True)
class Section:
    """One heading of the report; without blocks it is listed as missing, with the reason."""

    id: str
    title: str
    source: str
    """Where the paper shows the same thing."""
    blocks: tuple[Block, ...] = ()
    numbers: Any = field(default=None)
    missing: str = ""

    @classmethod
    def absent(cls, id: str, title: str, source: str, why: str) -> "Section":
        """The run holds nothing to show here."""
        return cls(id=id, title=title, source=source, missing=why)


def percent(fraction: float | None, interval: Sequence[float] | None = None, digits: int = 1) -> Cell:
    """A fraction as percent, with its 95 % interval (also fractions) as the note."""
    return plain(_scaled(fraction), [100 * end for end in interval[:2]] if interval else None, digits, "%")


def plain(
    value: float | None, interval: Sequence[float] | None = None, digits: int = 1, unit: str = ""
) -> Cell:
    """A number with a fixed count of digits and its interval; a dash when there is none."""
    if value is None:
        return Cell(DASH)
    text = f"{value:,.{digits}f}" + (f" {unit}" if unit else "")
    note = f"{interval[0]:,.{digits}f} {DASH} {interval[1]:,.{digits}f}" if interval else ""
    return Cell(text, note)


def seconds(value: float) -> str:
    """A duration as people read it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _scaled(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
