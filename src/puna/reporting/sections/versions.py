"""How each version measures up: the summary table, Table 30, Figure 11, Figures 14 and 20."""

from typing import Any

import numpy as np

from puna.reporting.blocks import Block, Cell, Drawing, Paragraph, Section, Table, percent, plain
from puna.reporting.paper_numbers import CONSTRAINT_KEPT, EVOLUTION, FALSE_REFUSAL, VIOLATION
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.style import INK, MUTED, describe, name_points, new_figure, shade

__all__ = ["TURNS", "constraint_kept", "evolution", "summary", "version_numbers"]

TURNS = (2, 4, 6)
"""The turns of Table 30 that fit the quickstart's context."""

_TITLES = {
    "helpfulness": "Helpfulness, points of 100",
    "violation_rate": "Violations",
    "false_refusal_rate": "False refusals",
    "refusal_rate_by_phrases_helpful": "Refusals by phrases, helpful prompts",
    "refusal_rate_by_phrases_borderline": "borderline prompts",
    "refusal_rate_by_phrases_adversarial": "adversarial prompts",
    "constraint_kept_turn_2": "Constraint kept, turn 2",
    "constraint_kept_turn_4": "turn 4",
    "constraint_kept_turn_6": "turn 6",
    "win_rate": "Win rate, helpfulness RM",
    "win_rate_safety": "Win rate, safety RM",
    "rm_helpfulness": "Helpfulness RM score",
    "rm_safety": "Safety RM score",
}
_BY_SUITE = {
    "false_refusal_rate_helpful": "helpfulness prompts",
    "false_refusal_rate_borderline": "borderline prompts",
}
_SCORES = ("rm_helpfulness", "rm_safety")


def version_numbers(run: RunFolder) -> list[dict[str, Any]]:
    """Every evaluated version with all its plain numbers, in training order."""
    names = (*_TITLES, *_BY_SUITE, "n", "intervals")
    return [
        {"version": version}
        | {name: found.metrics[name] for name in names if found.metrics.get(name) is not None}
        for version, found in run.evaluations.items()
    ]


def summary(run: RunFolder) -> Section:
    """One row a version, every measure with its 95 % interval."""
    head = ("summary", "Versions at a glance", "Sections 3.4 and 4.4")
    rows = version_numbers(run)
    if not rows:
        return Section.absent(*head, "no version has been evaluated yet")
    shown = [name for name in _TITLES if any(name in row for row in rows)]
    table = Table(
        "Each version on the same held-out prompts; in small type the 95 % interval, n counts answers."
        + _references(run),
        ("Version", *(_TITLES[name] for name in shown), "n"),
        tuple(
            (Cell(row["version"]), *(_measure(row, name) for name in shown), plain(row.get("n"), digits=0))
            for row in rows
        ),
    )
    blocks: tuple[Block, ...] = (table, *_refusals(rows))
    orientation = (Paragraph(_ORIENTATION),) if "violation_rate" in shown else ()
    return Section(*head, (*blocks, *orientation), rows)


_ORIENTATION = (
    "For orientation only, since people judged models thousands of times larger on other prompts: the paper's final "
    f"chat models violate on {min(VIOLATION.values()):.0f} to {max(VIOLATION.values()):.0f} % of adversarial prompts "
    "(Figure 17, read by eye)."
)


def _references(run: RunFolder) -> str:
    """Whom each win rate is against."""
    found = {version: run.input_of(artifact, "reference") for version, artifact in run.evaluations.items()}
    named = [f"{v} against {other.labels.get('version', other.name)}" for v, other in found.items() if other]
    return f" Win rates by reward model: {', '.join(named)}." if named else ""


def _measure(row: dict[str, Any], name: str) -> Cell:
    value, interval = row.get(name), row.get("intervals", {}).get(name)
    if name == "helpfulness":
        return plain(value, interval)
    return plain(value, interval, digits=2) if name in _SCORES else percent(value, interval)


def _refusals(rows: list[dict[str, Any]]) -> list[Table]:
    """False refusals apart by kind of prompt, as Section 4.2.3 has them."""
    found = [row for row in rows if any(name in row for name in _BY_SUITE)]
    if not found:
        return []
    paper = (
        Cell("paper, all safety data"),
        *(plain(FALSE_REFUSAL[title], digits=2, unit="%") for title in _BY_SUITE.values()),
    )
    ours = ((Cell(row["version"]), *(_measure(row, name) for name in _BY_SUITE)) for row in found)
    caption = "False refusals by kind of prompt; borderline prompts look adversarial and are benign (Section 4.2.3)."
    return [Table(caption, ("Version", *_BY_SUITE.values()), (paper, *ours))]


def constraint_kept(run: RunFolder) -> Section:
    """Share of dialogues whose standing instruction is still obeyed, by turn (Table 30)."""
    head = ("gatt", "Ghost Attention: is the instruction still obeyed?", "Section 3.3, Table 30")
    tuned = {version: found for version, found in run.evaluations.items() if version != "pretrained"}
    found = {version: artifact for version, artifact in tuned.items() if _turns(artifact)}
    if not found:
        return Section.absent(*head, "no evaluation with standing instructions over several turns")
    numbers = {version: _turns(artifact) for version, artifact in found.items()}
    versions = list(numbers)
    rows = tuple(
        (
            Cell(f"{turn}"),
            *(plain(paper, digits=0, unit="%") for paper in CONSTRAINT_KEPT[turn]),
            *(
                percent(numbers[v].get(turn), _interval(found[v], f"constraint_kept_turn_{turn}"))
                for v in versions
            ),
        )
        for turn in TURNS
    )
    table = Table(
        "Share of dialogues that keep the instruction given in the first turn. The paper asked people about public "
        "figures and hobbies; ours is graded by rule on the sandbox's constraints, so compare the shapes.",
        ("Turn", "Paper, without GAtt", "Paper, with GAtt", *(f"Ours, {version}" for version in versions)),
        rows,
    )
    return Section(
        *head,
        (table, _turn_drawing(numbers)),
        {v: {str(t): x for t, x in n.items()} for v, n in numbers.items()},
    )


def _turns(artifact: Artifact) -> dict[int, float]:
    found = {turn: artifact.metrics.get(f"constraint_kept_turn_{turn}") for turn in TURNS}
    return {turn: value for turn, value in found.items() if value is not None}


def _interval(artifact: Artifact, name: str) -> list[float] | None:
    return artifact.metrics.get("intervals", {}).get(name)


def _turn_drawing(numbers: dict[str, dict[int, float]]) -> Drawing:
    figure, (panel,) = new_figure(width=6.4)
    for index, (version, kept) in enumerate(numbers.items()):
        points = [(float(turn), 100 * value) for turn, value in kept.items()]
        colour = shade(index, len(numbers))
        panel.plot(
            *zip(*points, strict=True), color=colour, marker="o", markersize=5, linewidth=2, label=version
        )
    panel.set(xticks=TURNS, ylim=(-4, 104))
    describe(panel, x="turn", y="dialogues that keep it, %")
    panel.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawing(
        "table_30", figure, "The same numbers as a figure.", "Lines: constraint kept by turn per version"
    )


def evolution(run: RunFolder) -> Section:
    """Helpfulness against harmlessness, version after version (Figure 11)."""
    head = ("evolution", "Evolution over versions", "Section 3.4.1, Figure 11")
    rows = version_numbers(run)
    points, names = _graded_points(rows), ("helpfulness, points of 100", "harmless answers, %")
    if len(points) < 2:
        points, names = _scored_points(rows), ("helpfulness RM, mean score, %", "safety RM, mean score, %")
    if len(points) < 2:
        return Section.absent(*head, "needs two versions that are graded or scored")
    figure, (ours, paper) = new_figure(2, width=9.2, height=4.0)
    _path(ours, points)
    describe(ours, title="This run", x=names[0], y=names[1])
    _path(paper, [(version, *pair) for version, pair in EVOLUTION.items()])
    describe(
        paper, title="Paper, Figure 11 (left)", x="helpfulness win rate, %", y="harmlessness win rate, %"
    )
    drawing = Drawing(
        "figure_11",
        figure,
        "Up and to the right is better. The paper plots win rates against ChatGPT, judged by its own reward models "
        "(read off the chart); ours are absolute measures on held-out prompts. The path is what to compare.",
        "Helpfulness against harmlessness of each version, this run and the paper",
        wide=True,
    )
    return Section(
        *head,
        (drawing,),
        [dict(zip(("version", "helpful", "harmless"), p, strict=True)) for p in points],
    )


def _graded_points(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    graded = [row for row in rows if "helpfulness" in row and "violation_rate" in row]
    return [(row["version"], row["helpfulness"], 100 * (1 - row["violation_rate"])) for row in graded]


def _scored_points(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    scored = [row for row in rows if all(name in row for name in _SCORES)]
    return [(row["version"], *(100 * row[name] for name in _SCORES)) for row in scored]


def _path(panel: Any, points: list[tuple[str, float, float]]) -> None:
    xs = np.array([point[1] for point in points], dtype=float)
    ys = np.array([point[2] for point in points], dtype=float)
    panel.plot(xs, ys, color=MUTED, linewidth=1, zorder=1)
    colours = [shade(index, len(points)) for index in range(len(points))]
    panel.scatter(xs, ys, s=46, c=colours, zorder=2)
    name_points(panel, points)
    panel.margins(x=0.2, y=0.12)
