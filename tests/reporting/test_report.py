"""The report shows a run's numbers, says what is missing, and treats model text as text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from puna.core.artifacts import read_manifest
from puna.core.errors import DataError
from puna.reporting import build_report, quickstart_summary
from synthetic_run import HELPFULNESS, HOSTILE, VERSIONS, artifact, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    report = build_report(run, run / "report", title="A test run")["report"]
    return Path(report).read_text(encoding="utf-8")


class _Tags(HTMLParser):
    """Every tag with its attributes, and whether all that opened was closed."""

    VOID = frozenset(("meta", "link", "img", "br", "hr", "path", "use", "image", "rect"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page_is_self_contained(page: str) -> None:
    parsed = _Tags(page)
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(http" not in page
    assert "default-src 'none'" in page


def test_page_shows_every_section_and_version(page: str, run: Path) -> None:
    numbers = json.loads((run / "report" / "report.json").read_text())
    assert numbers["missing"] == {}
    assert page.count("<svg") == page.count('class="drawing')
    for version, points in zip(VERSIONS, HELPFULNESS, strict=True):
        assert f"{points:.1f}" in page
        assert version in page
    assert [row["version"] for row in numbers["sections"]["summary"]] == list(VERSIONS)
    assert "simulated" in page.lower()


def test_svg_ids_are_unique(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
    assert references <= set(ids)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", hostile=HOSTILE)
    report = build_report(run, run / "report", title=HOSTILE)
    page = Path(report["report"]).read_text(encoding="utf-8")
    parsed = _Tags(page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "49" not in re.findall(r"\b49\b", page.split("<main>")[0])
    markdown = (run / "report" / "report.md").read_text(encoding="utf-8")
    outside_code = re.sub(r"(`+) .*? \1(?!`)", "", markdown)
    assert "<script" not in outside_code
    assert "<img" not in outside_code


def test_markdown_pictures_exist(page: str, run: Path) -> None:
    markdown = (run / "report" / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown)
    assert len(pictures) >= 10
    for name in pictures:
        assert (run / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_half_finished_run_says_what_is_missing(tmp_path: Path) -> None:
    artifact(
        tmp_path / "run" / "sft", "model", {}, labels={"version": "sft"}, curves={"train": [{"loss": 2.0}]}
    )
    (tmp_path / "run" / ".rlhf-v1.partial").mkdir()
    (tmp_path / "run" / ".rlhf-v1.partial" / "manifest.json").write_text("torn")
    report = build_report(tmp_path / "run", tmp_path / "run" / "report", title="Half")
    assert {"summary", "gatt", "reward-accuracy", "ppo", "data", "examples"} <= set(report["missing"])
    assert set(report["sections"]) == {"pipeline", "losses", "costs", "limits"}
    page = Path(report["report"]).read_text()
    assert all(why.replace("'", "&#39;") in page for why in report["missing"].values())
    assert quickstart_summary(tmp_path / "run")["versions"] == []


def test_run_without_oracle_has_win_rate_and_perplexity(tmp_path: Path) -> None:
    run = tmp_path / "run"
    validation = {"loss": 3.0, "perplexity/books": 41.25, "perplexity/code": 12.5}
    curves = {"train": [{"loss": 4.0}, {"loss": 3.0}]}
    artifact(
        run / "base", "model", {"validation": validation}, labels={"version": "pretrained"}, curves=curves
    )
    for version, rate in (("sft", 0.5), ("rlhf-v1", 0.63)):
        found = {"win_rate": rate, "n": 100, "intervals": {"win_rate": [rate - 0.1, rate + 0.1, 100]}}
        artifact(run / "evaluation" / version, "evaluation", found, labels={"version": version})
    account = {
        "books": {"licence": "Public domain", "n_rows": 9, "n_kept": 7, "dropped": {"empty_answer": 2}}
    }
    artifact(run / "dialogs", "dialogs", {"sources": account})
    report = build_report(run, run / "report", title="Real")
    page = Path(report["report"]).read_text()
    for text in ("63.0 %", "41.25", "12.50", "Public domain", "empty answer", "no ground truth"):
        assert text in page
    assert "simulated" not in page.lower()
    assert "evolution" in report["missing"]


def test_second_build_is_skipped_and_a_new_stage_redraws(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "run" / "report"
    artifact(run / "sft", "model", {}, labels={"version": "sft"})
    build_report(run, out, title="R")
    first = read_manifest(out)
    build_report(run, out, title="R")
    assert read_manifest(out) == first
    artifact(run / "evaluation", "evaluation", {"helpfulness": 50.0, "n": 10}, labels={"version": "sft"})
    report = build_report(run, out, title="R")
    assert read_manifest(out).fingerprint != first.fingerprint
    assert report["sections"]["summary"][0]["helpfulness"] == 50.0


def test_same_run_gives_same_bytes(tmp_path: Path) -> None:
    curves = {"train": [{"loss": 2.0}, {"loss": 1.0}]}
    artifact(tmp_path / "run" / "sft", "model", {}, labels={"version": "sft"}, curves=curves)
    one, two = (tmp_path / name for name in ("one", "two"))
    for out in (one, two):
        build_report(tmp_path / "run", out, title="Same")
    names = sorted(
        path.relative_to(one) for path in one.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    assert len(names) == 5
    assert [(one / name).read_bytes() for name in names] == [(two / name).read_bytes() for name in names]


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finished artifact"):
        build_report(tmp_path, tmp_path / "report", title="Nothing")
    with pytest.raises(DataError, match="no such folder"):
        build_report(tmp_path / "nowhere", tmp_path / "report", title="Nothing")
