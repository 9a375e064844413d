"""What each stage took, on which machine, and what the numbers cannot say."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from puna.reporting.blocks import Cell, Paragraph, Section, Table, plain, seconds
from puna.reporting.run_folder import Artifact, RunFolder

__all__ = ["busy_seconds", "costs", "limits", "peak_rss_bytes", "wall_seconds"]


def wall_seconds(run: RunFolder) -> float:
    """Time in which some stage was at work: stages that ran side by side count once, pauses not at all.

    Manifests note a start to the second, so that is how exact each stage's part is.
    """
    manifests = [artifact.manifest for artifact in run.artifacts]
    return busy_seconds([(datetime.fromisoformat(m.started).timestamp(), m.wall_seconds) for m in manifests])


def busy_seconds(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, each a start and a length in seconds."""
    total, end = 0.0, -math.inf
    for start, length in sorted(intervals):
        total += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    return total


def peak_rss_bytes(run: RunFolder) -> int:
    """The most memory any stage's process held."""
    return max(artifact.manifest.peak_rss_bytes for artifact in run.artifacts)


def costs(run: RunFolder) -> Section:
    """Seconds and memory by stage in the order they ran, their total, and the machine (Table 2's place)."""
    ordered = sorted(run.artifacts, key=lambda artifact: (artifact.manifest.started, artifact.name))
    rows = [_row(artifact) for artifact in ordered]
    rows.append(
        (Cell("total"), Cell(""), Cell(seconds(wall_seconds(run))), _megabytes(peak_rss_bytes(run)), Cell(""))
    )
    caption = (
        "Wall time by stage; in the total, stages that ran side by side count once. "
        "Memory is the most the process had held by the end of the stage."
    )
    table = Table(caption, ("Stage", "Kind", "Time", "Memory", "Seed"), tuple(rows))
    first = ordered[0].manifest
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in _machine(first.hardware).items())
    text = f"Measured on: {machine}. Code {first.code_version}; first stage started {first.started}."
    numbers = {artifact.name: _numbers(artifact) for artifact in ordered}
    total = {
        "wall_seconds": wall_seconds(run),
        "peak_rss_bytes": peak_rss_bytes(run),
        "hardware": first.hardware,
    }
    return Section(
        "costs", "Time and memory", "Section 2.2.1", (table, Paragraph(text)), total | {"stages": numbers}
    )


def _row(artifact: Artifact) -> tuple[Cell, ...]:
    manifest = artifact.manifest
    return (
        Cell(artifact.name),
        Cell(manifest.kind.replace("_", " ")),
        Cell(seconds(manifest.wall_seconds)),
        _megabytes(manifest.peak_rss_bytes),
        Cell(str(manifest.seed)),
    )


def _megabytes(n_bytes: int) -> Cell:
    return plain(n_bytes / 2**20, digits=0, unit="MiB")


def _machine(hardware: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in hardware.items() if value not in ([], "", None)}
    if isinstance(shown.get("memory_bytes"), int):
        shown["memory"] = f"{shown.pop('memory_bytes') / 2**30:.0f} GiB"
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()
    }


def _numbers(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "kind": manifest.kind,
        "labels": dict(manifest.labels),
        "wall_seconds": manifest.wall_seconds,
        "peak_rss_bytes": manifest.peak_rss_bytes,
        "fingerprint": manifest.fingerprint,
    }


def limits(run: RunFolder) -> Section:
    """What a reader must not conclude."""
    return Section(
        "limits", "What these numbers cannot say", "Section 5.2", tuple(map(Paragraph, _limits(run)))
    )


def _limits(run: RunFolder) -> list[str]:
    size = (
        "The models are tiny beside the paper's 7 to 70 billion parameters; nothing here predicts how a large model "
        "behaves, and paper columns are there to compare shapes, never levels."
    )
    if not run.is_simulated:
        return [
            size,
            "There is no ground truth in this run: win rates and scores come from reward models trained in the same "
            "run, which favour the policies that were tuned against them. No person judged an answer.",
        ]
    return [
        "No person took part. Annotators are simulated: they see the sandbox's oracle through noise, and differ from "
        "one another less than people do. Their judgements, and every helpfulness, violation, refusal and constraint "
        "figure on this page, are about a small closed farm world with exact answers.",
        size,
        "Intervals cover the choice of prompts within one run and one seed; they do not cover training another seed.",
    ]
