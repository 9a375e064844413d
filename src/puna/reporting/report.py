"""The report of a run as an artifact: index.html, report.md with figures/, report.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.core.artifacts import StageContext, read_manifest
from puna.core.config import Settings
from puna.core.manifest import MANIFEST_NAME
from puna.core.progress import Reporter
from puna.core.stage import Aside, Metrics, stage
from puna.reporting.blocks import Section, seconds
from puna.reporting.render import as_html, as_json, as_markdown, dump
from puna.reporting.run_folder import RunFolder
from puna.reporting.sections import sections_of
from puna.reporting.sections.costs import wall_seconds

__all__ = ["LAYOUT_VERSION", "ReportConfig", "build_report", "draw_report", "earlier_title"]

LAYOUT_VERSION = 2
"""Raise when the page changes, so that old reports are drawn again."""


class ReportConfig(Settings):
    """What a report depends on besides the run's artifacts."""

    title: str
    """Heading of the page."""


def earlier_title(folder: Path) -> str | None:
    """Heading of the report in a folder, such as a recipe's title; None where there is none."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    title = read_manifest(folder).config.get("title")
    return str(title) if title else None


@stage("report", labels={"layout": str(LAYOUT_VERSION)})
def draw_report(
    config: ReportConfig,
    context: StageContext,
    *,
    artifacts: Mapping[str, Path],
    beside: Mapping[str, Path],
    run: Aside[RunFolder],
) -> Metrics:
    """Write index.html, report.md with figures/, and report.json.

    Args:
        artifacts: Those of the run, by name.
        beside: Those of other runs, whose training losses are drawn too.
        run: The same artifacts, read.
    """
    sections = [section(run) for section in sections_of(run)]
    lead, numbers = _lead(run, sections), as_json(config.title, sections)
    (context.folder / "index.html").write_text(as_html(config.title, lead, sections), encoding="utf-8")
    page = as_markdown(config.title, lead, sections, context.folder)
    (context.folder / "report.md").write_text(page, encoding="utf-8")
    (context.folder / "report.json").write_text(dump(numbers), encoding="utf-8")
    return {"sections": sorted(numbers["sections"]), "missing": numbers["missing"]}


def build_report(
    run: Path,
    out: Path,
    *,
    title: str = "A Llama 2, raised",
    beside: Sequence[Path] = (),
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Draw the report of whatever the run has finished; skipped when nothing changed since the last one.

    Args:
        beside: Other runs, whose training losses are drawn with this one's (Figure 5).
    Returns:
        report.json's content and, under `report`, the path of index.html.
    Raises:
        DataError: the run folder holds no finished artifact.
    """
    folder = RunFolder.scan(run, beside)
    others = {
        f"{number}.{artifact.name}": artifact.path
        for number, other in enumerate(folder.beside)
        for artifact in other.artifacts
    }
    draw_report(
        ReportConfig(title=title),
        artifacts={artifact.name: artifact.path for artifact in folder.artifacts},
        beside=others,
        run=folder,
        out=out,
        seed=0,
        reporter=reporter,
    )
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {"report": str(out / "index.html"), **content}


def _lead(run: RunFolder, sections: list[Section]) -> str:
    parts = [f"{len(run.artifacts)} stages, {seconds(wall_seconds(run))} in all."]
    if run.is_simulated:
        parts.append(
            "Annotators and graders are simulated: the sandbox's oracle stands in for people throughout."
        )
    missing = sum(bool(section.missing) for section in sections)
    if missing:
        what = "1 section has" if missing == 1 else f"{missing} sections have"
        parts.append(f"{what} no data in this run; the end of the page says why.")
    return " ".join(parts)
