"""Readers of raw text: each takes one file and yields its texts in order, cut to pages where they are long."""

import ast
import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from puna.core.errors import DataError
from puna.core.inputs import read_rows
from puna.pretraining_data.html_text import html_to_text
from puna.pretraining_data.warc import read_warc

__all__ = ["READERS", "Reader", "cut"]

MIN_PAGE_CHARS, MAX_PAGE_CHARS = 2000, 4000
"""Long works are cut to pages of about this length, so that one page is one thing to filter; our choice."""


def read_text(path: Path) -> str:
    """A text file, perhaps gzipped, as UTF-8 or else Latin-1, with plain newlines."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        fix = "The file is damaged: restore it."
        raise DataError(where=str(path), expected="a readable file", got=str(error), fix=fix) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def cut(paragraphs: Iterable[str], separator: str = "\n\n") -> Iterator[str]:
    """Join paragraphs to pages of MIN_PAGE_CHARS to MAX_PAGE_CHARS; an overlong paragraph is split at sentences."""
    page = ""
    for paragraph in paragraphs:
        for piece in _pieces(paragraph):
            joined = f"{page}{separator}{piece}" if page else piece
            if page and len(joined) > MAX_PAGE_CHARS:
                yield page
                joined = piece
            page = joined
            if len(page) >= MIN_PAGE_CHARS:
                yield page
                page = ""
    if page:
        yield page


def _pieces(paragraph: str) -> Iterator[str]:
    while len(paragraph) > MAX_PAGE_CHARS:
        ends = (paragraph.rfind(mark, MIN_PAGE_CHARS, MAX_PAGE_CHARS) + 1 for mark in (". ", "\n", " "))
        end = next((end for end in ends if end), MAX_PAGE_CHARS)
        yield paragraph[:end].rstrip()
        paragraph = paragraph[end:].lstrip("\n ")
    if paragraph.strip():
        yield paragraph.rstrip()


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def gutenberg(path: Path) -> Iterator[str]:
    """A Project Gutenberg book without the Project's header and licence, hard line ends of prose undone."""
    text = read_text(path)
    start = re.search(r"^\*\*\* ?START OF .*?\*\*\*[ \t]*$", text, re.MULTILINE)
    end = re.search(
        r"^(?:End of (?:the )?Project Gutenberg|\*\*\* ?END OF )", text, re.MULTILINE | re.IGNORECASE
    )
    body = text[start.end() if start else 0 : end.start() if end else len(text)]
    kept = (part for part in _paragraphs(body) if not part.startswith(("Produced by", "[Illustration")))
    yield from cut(map(_unwrap, kept))


def _unwrap(paragraph: str) -> str:
    """Lines that run to the margin are prose and are joined; short lines are verse or headings and stay."""
    lines = [line.strip() for line in paragraph.split("\n")]
    is_prose = len(lines) > 1 and min(map(len, lines[:-1])) > 45
    return (" " if is_prose else "\n").join(lines)


def wikitext(path: Path) -> Iterator[str]:
    """Articles of WikiText with its spaced-out tokens joined; its own <unk> stand-ins stay, as published."""
    article: list[str] = []
    for line in map(str.strip, read_text(path).split("\n")):
        if re.fullmatch(r"= [^=].* =", line) and article:
            yield from cut(article)
            article = []
        if line:
            article.append(_detokenise(line))
    yield from cut(article)


def _detokenise(line: str) -> str:
    line = re.sub(r" @([-,.])@ ", r"\1", line)
    line = re.sub(r" ([,.;:!?)\]%]|'s\b|n't\b)", r"\1", line)
    line = re.sub(r'" ([^"]*?) "', r'"\1"', line)
    return re.sub(r"([(\[]) ", r"\1", line)


def stackexchange(path: Path) -> Iterator[str]:
    """Posts.xml: each question, then its answers by score, HTML removed (as Touvron et al. 2023a, §2.1)."""
    questions: dict[str, str] = {}
    answers: dict[str, list[tuple[int, int, str]]] = {}
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for _, row in ElementTree.iterparse(stream):
                body = html_to_text(row.get("Body", ""))
                if row.get("PostTypeId") == "1":
                    questions[row.attrib["Id"]] = f"{row.get('Title', '')}\n\n{body}".strip()
                elif row.get("PostTypeId") == "2":
                    ranked = (-int(row.get("Score", 0)), int(row.attrib["Id"]), body)
                    answers.setdefault(row.get("ParentId", ""), []).append(ranked)
                row.clear()
    except (ElementTree.ParseError, KeyError, ValueError, OSError, EOFError) as error:
        fix = "The dump is damaged or truncated: restore it."
        raise DataError(where=str(path), expected="a Posts.xml dump", got=repr(error), fix=fix) from None
    for question_id, question in questions.items():
        ranked_answers = [body for _, _, body in sorted(answers.get(question_id, []))]
        yield from cut([question, *ranked_answers])


def tex(path: Path) -> Iterator[str]:
    """TeX from the first section to the bibliography, comments removed (as Touvron et al. 2023a, §2.1)."""
    text = read_text(path)
    start = text.find("\\section")
    end = re.search(r"\\(?:bibliography|begin\{thebibliography\}|input\{chapters\})", text)
    body = text[max(0, start) : end.start() if end else len(text)]
    body = re.sub(r"(?<!\\)%.*", "", body)
    body = re.sub(r"^\\(?:label\{[^}]*\}|noindent|medskip\\noindent|medskip)[ \t]*\n?", "", body, flags=re.M)
    yield from cut(_paragraphs(body))


def json_lines(path: Path) -> Iterator[str]:
    """The `text` of each object, as C4 is published."""
    for number, row in enumerate(read_rows(path), start=1):
        if not isinstance(row.get("text"), str):
            got = f"keys {', '.join(map(str, row)) or '(none)'}"
            fix = "Correct or remove this row."
            raise DataError(where=f"{path}, row {number}", expected="a string under text", got=got, fix=fix)
        yield row["text"]


def plain_text(path: Path) -> Iterator[str]:
    """Any text file: paragraphs between empty lines, joined to pages."""
    yield from cut(_paragraphs(read_text(path)))


def stories(path: Path) -> Iterator[str]:
    """TinyStories: a story a page; one starts where its usual opening words do, or after its end-of-text mark."""
    story: list[str] = []
    for line in map(str.strip, read_text(path).split("\n")):
        is_mark = line == "<|endoftext|>"
        if story and (is_mark or re.match(r"(?:once |one day,? a |there (?:was|were) once )", line, re.I)):
            yield "\n\n".join(story)
            story = []
        if line and not is_mark:
            story.append(line)
    if story:
        yield "\n\n".join(story)


def web_archive(path: Path) -> Iterator[str]:
    """The visible text of each HTML page in a WARC file (ISO 28500)."""
    yield from map(html_to_text, read_warc(path))


def python_code(path: Path) -> Iterator[str]:
    """A Python file, docstrings included, cut between blank-line blocks; pydoc's topics are its documentation."""
    text = read_text(path)
    if path.name == "topics.py" and path.parent.name == "pydoc_data":
        yield from _pydoc_topics(text)
    else:
        yield from cut(_paragraphs(text))


def _pydoc_topics(text: str) -> Iterator[str]:
    """The language reference that the standard library carries: strings of one dictionary, read, not run."""
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    for topic in strings:
        if isinstance(topic, str) and "\n" in topic:
            yield from cut(_paragraphs(topic))


@dataclass(frozen=True)
class Reader:
    """How one kind of source is read."""

    patterns: tuple[str, ...]
    """File names to look for in a folder."""
    texts: Callable[[Path], Iterator[str]]


READERS: dict[str, Reader] = {
    "gutenberg": Reader(("*.txt", "*.txt.gz"), gutenberg),
    "wikitext": Reader(("*.txt", "*.txt.gz"), wikitext),
    "stackexchange": Reader(("Posts*.xml", "Posts*.xml.gz"), stackexchange),
    "tex": Reader(("*.tex", "*.tex.gz"), tex),
    "json_lines": Reader(("*.jsonl", "*.jsonl.gz", "*.jsonl.zst"), json_lines),
    "plain_text": Reader(("*.txt", "*.txt.gz"), plain_text),
    "stories": Reader(("*.txt", "*.txt.gz"), stories),
    "warc": Reader(("*.warc", "*.warc.gz"), web_archive),
    "python": Reader(("*.py",), python_code),
}
"""By the name a recipe gives."""
