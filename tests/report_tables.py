"""Reads the tables of a report back, from its page or from its Markdown, and finds a cell by row and heading."""

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser


@dataclass
class ReportTable:
    """One table as a reader sees it: headings, and rows of cells. Small type is joined in brackets."""

    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def cell(self, *labels: str, column: str) -> str:
        """The one cell under this heading in the one row that begins with these labels; no small type."""
        (row,) = [row for row in self.rows if row[: len(labels)] == list(labels)]
        assert len(row) == len(self.columns)
        assert self.columns.count(column) == 1, f"{column!r} is no heading of {self.columns}"
        return row[self.columns.index(column)].split(" (")[0]


class _Page(HTMLParser):
    """Tables of a page by the id of the section that they stand in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[ReportTable]] = {}
        self._section = ""
        self._cell: list[str] | None = None
        self._row: list[str] = []
        self._is_head = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        elif tag == "table":
            self.tables.setdefault(self._section, []).append(ReportTable())
        elif tag == "thead":
            self._is_head = True
        elif tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            self._cell = []
        elif tag == "small" and self._cell is not None:
            self._cell.append(" (")

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "small" and self._cell is not None:
            self._cell.append(")")
        elif tag in ("th", "td") and self._cell is not None:
            self._row.append("".join(self._cell))
            self._cell = None
        elif tag == "tr" and self._section in self.tables:
            table = self.tables[self._section][-1]
            if self._is_head:
                table.columns = self._row
            else:
                table.rows.append(self._row)
        elif tag == "thead":
            self._is_head = False


def tables_of_page(page: str) -> dict[str, list[ReportTable]]:
    """Section id -> its tables, from top to bottom."""
    return _Page(page).tables


def tables_of_markdown(text: str) -> list[ReportTable]:
    """Every table, from top to bottom."""
    tables: list[ReportTable] = []
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|"):
            continue
        if not before.startswith("|"):
            tables.append(ReportTable(columns=_cells(line)))
        elif set(line) != set("|-"):
            tables[-1].rows.append(_cells(line))
    return tables


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return [unescape(re.sub(r"\\([|*`])", r"\1", part)).strip() for part in parts]
