"""Text of an HTML page: block elements end lines, scripts and page furniture are left out."""

from html.parser import HTMLParser

__all__ = ["html_to_text"]

HIDDEN = frozenset(
    {"script", "style", "noscript", "template", "svg", "head", "nav", "footer", "form", "button"}
)
BLOCKS = frozenset(
    {
        "article",
        "blockquote",
        "br",
        "dd",
        "div",
        "dt",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
    }
    | {"main", "ol", "p", "pre", "section", "table", "tr", "ul"}
)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._n_pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in HIDDEN:
            self._hidden.append(tag)
        self._n_pre += tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        self._n_pre = max(0, self._n_pre - (tag == "pre"))
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data if self._n_pre else data.replace("\r", " ").replace("\n", " "))


def html_to_text(html: str) -> str:
    """The visible text, one line a block; spaces are kept inside preformatted blocks only."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (line.rstrip() for line in "".join(reader.parts).split("\n"))
    return "\n".join(
        line if line.startswith("    ") else " ".join(line.split()) for line in lines if line.strip()
    )
