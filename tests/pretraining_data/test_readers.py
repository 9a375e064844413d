"""Readers on small hand-made files of each published format."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import DataError
from puna.pretraining_data.html_text import html_to_text
from puna.pretraining_data.readers import MAX_PAGE_CHARS, MIN_PAGE_CHARS, READERS, cut


def read(reader: str, path: Path) -> list[str]:
    return list(READERS[reader].texts(path))


@given(st.lists(st.text("abc .", min_size=1, max_size=3000).filter(str.strip), max_size=12))
def test_pages_keep_every_letter_and_the_size_limit(paragraphs: list[str]) -> None:
    pages = list(cut(paragraphs))
    assert "".join("".join(pages).split()) == "".join("".join(paragraphs).split())
    assert all(len(page) <= MAX_PAGE_CHARS for page in pages)
    assert all(len(page) + max(map(len, paragraphs)) > MIN_PAGE_CHARS for page in pages[:-1])


def test_an_overlong_paragraph_is_split_at_sentences() -> None:
    pages = list(cut(["The goat eats hay. " * 1000]))
    assert all(page.endswith("hay.") for page in pages)
    assert all(MIN_PAGE_CHARS <= len(page) <= MAX_PAGE_CHARS for page in pages[:-1])


def test_gutenberg_loses_the_projects_own_text_and_hard_line_ends(tmp_path: Path) -> None:
    book = (
        "The Project Gutenberg EBook of Goats\r\n\r\n*** START OF THIS PROJECT GUTENBERG EBOOK GOATS ***\r\n\r\n"
        "Produced by Anna\r\n\r\nCHAPTER I\r\n\r\n"
        "It was a bright day in the valley when the first of\r\n"
        "the goats came down from the hills to look for\r\nhay.\r\n"
        "\r\nA goat\r\nin a boat\r\n\r\nEnd of the Project Gutenberg EBook of Goats\r\n\r\n*** END OF ...\r\nLicence"
    )
    path = tmp_path / "1.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + book.encode()))
    prose = "It was a bright day in the valley when the first of the goats came down from the hills to look for hay."
    assert read("gutenberg", path) == [f"CHAPTER I\n\n{prose}\n\nA goat\nin a boat"]


def test_gutenberg_reads_latin_1(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(
        "*** START OF A BOOK ***\nchèvre\n*** END OF A BOOK ***".encode("latin-1")
    )
    assert read("gutenberg", tmp_path / "1.txt") == ["chèvre"]


def test_wikitext_joins_its_tokens_and_parts_its_articles(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        ' \n = Goat = \n \n The goat \'s red @-@ brown coat weighs 1 @.@ 5 kg ( 3 lb ) , it " eats " . \n'
        " = = Food = = \n Hay . \n \n = Cow = \n Grass . \n"
    )
    goat = '= Goat =\n\nThe goat\'s red-brown coat weighs 1.5 kg (3 lb), it "eats".\n\n= = Food = =\n\nHay.'
    assert read("wikitext", tmp_path / "a.txt") == [goat, "= Cow =\n\nGrass."]


def test_stackexchange_puts_answers_under_questions_by_score(tmp_path: Path) -> None:
    rows = [
        '<row Id="1" PostTypeId="1" Title="Hay?" Body="&lt;p&gt;How &lt;b&gt;much&lt;/b&gt;?&lt;/p&gt;" Score="2"/>',
        '<row Id="2" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Little.&lt;/p&gt;" Score="1"/>',
        '<row Id="3" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Much &amp;amp; more.&lt;/p&gt;" Score="9"/>',
        '<row Id="4" PostTypeId="5" Body="wiki"/>',
    ]
    (tmp_path / "Posts.xml").write_text(f"<posts>{''.join(rows)}</posts>")
    assert read("stackexchange", tmp_path / "Posts.xml") == ["Hay?\n\nHow much?\n\nMuch & more.\n\nLittle."]
    (tmp_path / "Posts.xml").write_text(f"<posts>{rows[0]}")
    with pytest.raises(DataError, match=r"Posts\.xml"):
        read("stackexchange", tmp_path / "Posts.xml")


def test_tex_starts_at_the_first_section_without_comments(tmp_path: Path) -> None:
    (tmp_path / "a.tex").write_text(
        "\\input{preamble}\n\\section{Sets}\n\\label{s}\n\\noindent\nA set of 5\\% % really\nis small.\n"
        "\\bibliography{my}\n\\end{document}"
    )
    assert read("tex", tmp_path / "a.tex") == ["\\section{Sets}\nA set of 5\\% \nis small."]


def test_json_lines_need_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "hay"}) + "\n")
    assert read("json_lines", path) == ["hay"]
    path.write_text(json.dumps({"text": "hay"}) + "\n" + json.dumps({"body": "x"}))
    with pytest.raises(DataError, match="row 2"):
        read("json_lines", path)


def test_stories_start_at_their_opening_words(tmp_path: Path) -> None:
    text = "Once upon a time, a goat.\n\nIt ate.\n\nOnce there was a cow.\nThe end.\n<|endoftext|>\nTom ran."
    (tmp_path / "a.txt").write_text(text)
    assert read("stories", tmp_path / "a.txt") == [
        "Once upon a time, a goat.\n\nIt ate.",
        "Once there was a cow.\n\nThe end.",
        "Tom ran.",
    ]


def test_python_topics_are_read_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "pydoc_data"
    folder.mkdir()
    (folder / "topics.py").write_text("topics = {'if': 'The if statement\\n\\nchooses.\\n'}")
    assert read("python", folder / "topics.py") == ["The if statement\n\nchooses."]
    (tmp_path / "a.py").write_text("x = 1\n\n\ny = 2\n")
    assert read("python", tmp_path / "a.py") == ["x = 1\n\ny = 2"]


def test_html_keeps_blocks_and_hides_scripts() -> None:
    html = (
        "<html><head><title>no</title></head><body><nav>menu</nav><p>Goats &amp;\n hay</p>"
        "<ul><li>one</li><li>two</li></ul><script>var x;</script><pre>  a\n    b</pre></body></html>"
    )
    assert html_to_text(html).split("\n") == ["Goats & hay", "one", "two", "a", "    b"]


@given(st.text(max_size=200))
def test_any_html_is_read(html: str) -> None:
    assert "\n\n" not in html_to_text(html)


def warc_record(kind: str, block: bytes) -> bytes:
    return (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(block)}\r\n\r\n".encode()
        + block
        + b"\r\n\r\n"
    )


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/html; charset=latin-1", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_warc_yields_successful_html_responses(tmp_path: Path) -> None:
    chunked = b"7\r\n<p>goat\r\n3\r\ns \xe9\r\n0\r\n\r\n"
    records = [
        warc_record("warcinfo", b"software: x"),
        warc_record("request", b"GET / HTTP/1.1\r\n\r\n"),
        warc_record("response", http(b"<p>hay</p>")),
        warc_record("response", http(b"<p>gone</p>", status="404 Not Found")),
        warc_record("response", http(chunked, "Transfer-Encoding: chunked")),
        warc_record("response", http(gzip.compress(b"<p>oats</p>"), "Content-Encoding: gzip")),
    ]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(map(gzip.compress, records)))
    assert read("warc", path) == ["hay", "goats é", "oats"]
    path.write_bytes(b"".join(map(gzip.compress, records))[:-20])
    with pytest.raises(DataError, match=r"a\.warc\.gz"):
        read("warc", path)
    (tmp_path / "b.warc").write_bytes(b"hello\n")
    with pytest.raises(DataError, match="WARC"):
        read("warc", tmp_path / "b.warc")
