"""Sections to one self-contained HTML page, to Markdown with pictures beside it, and to JSON."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from puna.reporting.blocks import Block, Cell, Drawing, Examples, Paragraph, Section, Table
from puna.reporting.style import to_png, to_svg

__all__ = ["as_html", "as_json", "as_markdown"]


def as_html(title: str, lead: str, sections: list[Section]) -> str:
    """One page without any outside request; every text is escaped, only our own drawings are markup."""
    environment = Environment(
        loader=PackageLoader("puna.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = _inline
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    template = environment.get_template("report.html.j2")
    return template.render(title=title, lead=lead, sections=sections)


def _inline(drawing: Drawing) -> Markup:
    return Markup(to_svg(drawing.figure, name=drawing.name))


def as_json(title: str, sections: list[Section]) -> dict[str, Any]:
    """Every number of the page by section, and what is missing with its reason."""
    return {
        "title": title,
        "sections": {section.id: section.numbers for section in sections if not section.missing},
        "missing": {section.id: section.missing for section in sections if section.missing},
    }


def as_markdown(title: str, lead: str, sections: list[Section], folder: Path) -> str:
    """The page as Markdown; writes each drawing to figures/ in the folder."""
    (folder / "figures").mkdir(exist_ok=True)
    lines = [f"# {_plain(title)}", "", _plain(lead), ""]
    for section in sections:
        if section.missing:
            continue
        lines += [f"## {_plain(section.title)}", "", f"*Paper: {_plain(section.source)}*", ""]
        for block in section.blocks:
            lines += [*_block(block, folder), ""]
    missing = [section for section in sections if section.missing]
    if missing:
        lines += ["## Left out", "", *(f"- {s.title} ({s.source}): {s.missing}" for s in missing), ""]
    return "\n".join(lines)


def _block(block: Block, folder: Path) -> list[str]:
    match block:
        case Paragraph(text):
            return [_plain(text)]
        case Table():
            return _table(block)
        case Drawing():
            (folder / "figures" / block.file_name).write_bytes(to_png(block.figure))
            return [f"![{_plain(block.alt)}](figures/{block.file_name})", "", f"*{_plain(block.caption)}*"]
        case Examples():
            return _examples(block)


def _table(table: Table) -> list[str]:
    rows = [_row(table.columns), "|" + "---|" * len(table.columns)]
    rows += [_row([_cell(cell) for cell in row]) for row in table.rows]
    return [*rows, "", f"*{_plain(table.caption)}*"]


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _cell(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _examples(examples: Examples) -> list[str]:
    lines = [f"**{_plain(examples.group)}**", ""]
    lines += [f"- *{role}:* {_code(text)}" for role, text in examples.turns]
    lines += [
        f"- **{version}:** {_code(answer)} {_plain(verdict)}" for version, answer, verdict in examples.answers
    ]
    return lines


def _code(text: str) -> str:
    """Model text as an inline code span, which Markdown and the HTML in it leave alone."""
    longest = max((len(run) for run in text.split() if set(run) == {"`"}), default=0)
    fence = "`" * (max(longest, text.count("`")) + 1)
    return f"{fence} {' '.join(text.split())} {fence}" if text.strip() else "(empty)"


def _plain(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    for mark, safe in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("*", "\\*"),
        ("`", "\\`"),
    ):
        text = text.replace(mark, safe)
    return text.replace("\n", " ")


def dump(value: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
