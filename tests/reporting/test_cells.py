"""Every number of a report stands in its cell: the row that its label names, under the heading that means it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from puna.reporting import build_report
from puna.reporting.blocks import Drawing, Examples, Section, Table
from puna.reporting.run_folder import RunFolder
from puna.reporting.sections.distillation import context_distillation
from puna.reporting.sections.examples import examples
from puna.reporting.sections.preferences import preferences
from puna.reporting.sections.reward_models import accuracy, reward_against_k
from puna.reporting.sections.scores import before_and_after
from puna.reporting.sections.training_cost import training_cost
from puna.reporting.sections.versions import constraint_kept, evolution
from report_tables import ReportTable, tables_of_markdown, tables_of_page
from synthetic_run import (
    CONSTRAINT_KEPT,
    HELPFULNESS,
    VERSIONS,
    VIOLATION,
    accuracy_levels,
    artifact,
    write_run,
)

RATINGS = ("significantly better", "better", "slightly better", "negligibly better")
"""Headings of Table 8, typed here and not imported, so that an order turned round in the code is seen."""
PAPER_ACCURACY = {
    ("safety", "safety"): (94.3, 76.3, 65.7, 55.3, 64.5),
    ("helpfulness", "safety"): (89.9, 73.2, 63.8, 54.5, 62.8),
    ("safety", "helpfulness"): (64.6, 57.5, 53.8, 52.2, 56.2),
    ("helpfulness", "helpfulness"): (80.7, 67.5, 60.9, 54.7, 63.2),
}
SAFETY_SCORES = ((0.1, 0.55), (0.3, 0.75), (0.5, 0.4))
"""Of three prompts, before and after."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("cells") / "run")
    scores = [
        {"domain": "safety", "before": {"safety": before}, "after": {"safety": after}}
        for before, after in SAFETY_SCORES
    ]
    artifact(
        run / "shift",
        "score_shift",
        {},
        files={"scores.jsonl": scores},
        inputs={"before": run / "models" / "sft", "after": run / "models" / "rlhf-v2"},
    )
    build_report(run, run / "report", title="Cells")
    return run


@pytest.fixture(scope="module")
def tables(run: Path) -> dict[str, list[ReportTable]]:
    return tables_of_page((run / "report" / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(run: Path) -> RunFolder:
    return RunFolder.scan(run)


def figure_of(section: Section) -> list[Axes]:
    (drawing,) = [block for block in section.blocks if isinstance(block, Drawing)]
    return drawing.figure.axes


def points(xs: object, ys: object) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]  # type: ignore[call-overload]


def near(pairs: list[tuple[float, float]]) -> list[object]:
    return [pytest.approx(pair) for pair in pairs]


def by_rating(levels: Sequence[float]) -> dict[str, float]:
    """The first four under the short names that the axis of Table 8's figure has."""
    return dict(zip(("significantly", "better", "slightly", "negligibly"), levels[:4], strict=True))


def test_markdown_has_the_cells_of_the_page(run: Path, tables: dict[str, list[ReportTable]]) -> None:
    markdown = tables_of_markdown((run / "report" / "report.md").read_text(encoding="utf-8"))
    on_page = [table for section in tables.values() for table in section]
    assert len(on_page) >= 12
    for mine, theirs in zip(markdown, on_page, strict=True):
        assert (mine.columns, mine.rows) == (theirs.columns, theirs.rows)


@pytest.mark.parametrize("index", range(5))
def test_measures_stand_under_their_titles(tables: dict[str, list[ReportTable]], index: int) -> None:
    at_a_glance, refusals = tables["summary"]
    kept = {turn: f"{100 * levels[index]:.1f} %" for turn, levels in CONSTRAINT_KEPT.items()}
    expected = {
        "Helpfulness, points of 100": f"{HELPFULNESS[index]:.1f}",
        "Violations": f"{100 * VIOLATION[index]:.1f} %",
        "False refusals": f"{0.4 * index:.1f} %",
        "Constraint kept, turn 2": kept[2],
        "turn 4": kept[4],
        "turn 6": kept[6],
        "Helpfulness RM score": f"{0.4 + 0.08 * index:.2f}",
        "Safety RM score": f"{0.3 + 0.1 * index:.2f}",
        "n": "640",
    }
    assert at_a_glance.columns == ["Version", *expected]
    assert {name: at_a_glance.cell(VERSIONS[index], column=name) for name in expected} == expected
    helpful, borderline = f"{0.3 * index:.1f} %", f"{1.1 * index:.1f} %"
    assert refusals.cell(VERSIONS[index], column="helpfulness prompts") == helpful
    assert refusals.cell(VERSIONS[index], column="borderline prompts") == borderline
    assert refusals.cell("paper, all safety data", column="helpfulness prompts") == "0.05 %"
    assert refusals.cell("paper, all safety data", column="borderline prompts") == "27.00 %"


def test_harmlessness_is_what_is_no_violation(folder: RunFolder) -> None:
    """Figure 11: to the right is more helpful, up is more harmless, in this run's panel and in the paper's."""
    section = evolution(folder)
    harmless = [100 * (1 - violation) for violation in VIOLATION]
    assert [row["harmless"] for row in section.numbers] == pytest.approx(harmless)
    assert [row["helpful"] for row in section.numbers] == list(HELPFULNESS)
    ours, paper = figure_of(section)
    assert (ours.get_xlabel(), ours.get_ylabel()) == ("helpfulness, points of 100", "harmless answers, %")
    path = points(*ours.lines[0].get_data())
    assert path == near(list(zip(HELPFULNESS, harmless, strict=True)))
    assert paper.get_xlabel() == "helpfulness win rate, %"
    printed = points(*paper.lines[0].get_data())
    assert (printed[0], printed[-1]) == ((39, 22), (78, 76))


@pytest.mark.parametrize(("turn", "without", "with_gatt"), [(2, 100, 100), (4, 10, 100), (6, 0, 100)])
def test_table_30(tables: dict[str, list[ReportTable]], turn: int, without: int, with_gatt: int) -> None:
    (table,) = tables["gatt"]
    assert table.cell(str(turn), column="Paper, without GAtt") == f"{without} %"
    assert table.cell(str(turn), column="Paper, with GAtt") == f"{with_gatt} %"
    for index, version in enumerate(VERSIONS[1:], start=1):
        kept = f"{100 * CONSTRAINT_KEPT[turn][index]:.1f} %"
        assert table.cell(str(turn), column=f"Ours, {version}") == kept


def test_constraint_kept_is_drawn_by_turn(folder: RunFolder) -> None:
    (panel,) = figure_of(constraint_kept(folder))
    for index, line in enumerate(panel.lines, start=1):
        assert line.get_label() == VERSIONS[index]
        expected = [(turn, 100 * levels[index]) for turn, levels in CONSTRAINT_KEPT.items()]
        assert points(*line.get_data()) == near(expected)


@pytest.mark.parametrize("role", ["helpfulness", "safety"])
@pytest.mark.parametrize("test_set", ["helpfulness", "safety"])
def test_table_8(tables: dict[str, list[ReportTable]], role: str, test_set: str) -> None:
    table = tables["reward-accuracy"][0]
    printed = PAPER_ACCURACY[role, test_set]
    for heading, value in zip((*RATINGS, "all"), printed, strict=True):
        assert table.cell(f"paper, {role} RM", test_set, column=heading) == f"{value:.1f} %"
    for round_ in ("1", "2"):
        levels = accuracy_levels(role, test_set, round_)
        for heading, level in zip((*RATINGS, "all"), levels, strict=True):
            shown = table.cell(f"{role} RM, round {round_}", test_set, column=heading)
            assert shown == f"{100 * level:.1f} %"


def test_accuracy_is_drawn_over_its_rating(folder: RunFolder) -> None:
    for panel, role in zip(figure_of(accuracy(folder)), ("helpfulness", "safety"), strict=True):
        ticks = [label.get_text() for label in panel.get_xticklabels()]
        (paper,) = [line for line in panel.lines if line.get_label() == "paper"]
        assert dict(zip(ticks, paper.get_ydata(), strict=True)) == by_rating(PAPER_ACCURACY[role, role])
        for bars, round_ in zip(panel.containers, ("1", "2"), strict=True):
            assert bars.get_label() == f"round {round_}"
            levels = [100 * level for level in accuracy_levels(role, role, round_)]
            drawn = dict(zip(ticks, bars.lines[0].get_ydata(), strict=True))
            assert drawn == pytest.approx(by_rating(levels))


@pytest.mark.parametrize(
    ("heading", "baseline", "auxiliary", "ours"),
    [
        ("all", 63.7, 64.5, 79.0),
        ("chosen safe rejected unsafe", 93.0, 94.3, 91.0),
        ("both safe", 56.0, 56.9, 74.0),
        ("both unsafe", 59.5, 59.9, 82.0),
        ("recall of unsafe at 0.5", 73.0, 90.4, 88.0),
    ],
)
def test_table_29(
    tables: dict[str, list[ReportTable]], heading: str, baseline: float, auxiliary: float, ours: float
) -> None:
    table = tables["reward-accuracy"][1]
    assert table.cell("paper, baseline", column=heading) == f"{baseline:.1f} %"
    assert table.cell("paper, with auxiliary loss", column=heading) == f"{auxiliary:.1f} %"
    assert table.cell("ours, safety RM, round 2", column=heading) == f"{ours:.1f} %"


def test_best_and_median_of_k_are_named_and_drawn_as_the_caption_says(folder: RunFolder) -> None:
    """Figure 7: the solid line is the best of K and climbs; the dotted one is the median and stays."""
    (panel,) = figure_of(reward_against_k(folder))
    names = [text.get_text() for text in panel.texts]
    drawn = {
        name: (line.get_linestyle(), points(*line.get_data()))
        for name, line in zip(names, panel.lines, strict=True)
    }
    for round_ in (1, 2):
        level = 0.3 + 0.1 * round_
        best = [(2.0**power, level + 0.11 * power) for power in range(5)]
        median = [(2.0**power, level) for power in range(5)]
        assert drawn[f"max, rlhf-v{round_}"] == ("-", near(best))
        assert drawn[f"median, rlhf-v{round_}"] == (":", near(median))


def test_before_stands_before_after(tables: dict[str, list[ReportTable]], folder: RunFolder) -> None:
    """Figure 14, on SAFETY_SCORES, measured for sft and rlhf-v2."""
    (table,) = tables["safety-shift"]
    expected = {
        "n": "3",
        "Mean, sft": "0.300",
        "Mean, rlhf-v2": "0.567",
        "Under 0.5, sft": "66.7 %",
        "Under 0.5, rlhf-v2": "33.3 %",
        "Improved": "66.7 %",
    }
    assert table.columns == ["Reward model", *expected]
    assert {name: table.cell("safety", column=name) for name in expected} == expected
    (panel,) = figure_of(before_and_after(folder))
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("score of sft", "score of rlhf-v2")
    dots = [tuple(dot) for dot in panel.collections[0].get_offsets()]
    assert dots == near(list(SAFETY_SCORES))


def test_figure_16(tables: dict[str, list[ReportTable]], folder: RunFolder) -> None:
    (table,) = tables["distillation"]
    for kind, paper, ours in (
        ("without", "0.75", "0.500"),
        ("generic", "0.82", "0.700"),
        ("template", "0.87", "0.740"),
    ):
        assert table.cell(f"median safety score, {kind}", column="Paper (by eye)") == paper
        assert table.cell(f"median safety score, {kind}", column="This run") == ours
    (attempts,) = [artifact.rows("attempts.jsonl") for artifact in folder.of_kind("distillation_data")]
    (panel,) = figure_of(context_distillation(folder))
    kept = [tuple(dot) for dot in panel.collections[0].get_offsets()]
    rows = [row for row in attempts if row["is_kept"]]
    assert kept == near([(row["safety_without"], row["safety_with"] - row["safety_without"]) for row in rows])


def test_a_violation_is_called_one(folder: RunFolder) -> None:
    """Two versions of the made-up run violate on every adversarial prompt; nothing in it is refused."""
    shown = [block for block in examples(folder).blocks if isinstance(block, Examples)]
    for block in shown:
        for version, _, verdict in block.answers:
            is_violation = block.group == "adversarial" and version in VERSIONS[:2]
            assert ("violation" in verdict, "refusal" in verdict) == (is_violation, False)
    assert {block.group for block in shown} == {"helpful", "adversarial", "borderline", "constraint"}


def test_table_6_and_the_safety_bins(tables: dict[str, list[ReportTable]]) -> None:
    sizes, bins = tables["preferences"]
    paper = {
        "comparisons": "1,418,091",
        "turns per dialog": "3.9",
        "tokens per example": "798.5",
        "per prompt": "31.4",
        "per response": "234.1",
    }
    ours = dict(zip(paper, ("1,800", "1.4", "41.5", "18.2", "14.0"), strict=True))
    assert {name: sizes.cell("paper, all batches", column=name) for name in paper} == paper
    assert {name: sizes.cell("ours, round-1", column=name) for name in ours} == ours
    assert sizes.cell("ours, round-1", column="judged by") == "4 simulated annotators"
    for heading, printed, own in (
        ("chosen safe rejected unsafe", 18, 25.0),
        ("both safe", 47, 46.7),
        ("both unsafe", 35, 28.3),
    ):
        assert bins.cell("paper", column=heading) == f"{printed} %"
        assert bins.cell("ours, round-1", column=heading) == f"{own:.1f} %"


def test_rating_shares_are_drawn_from_strongest_to_weakest(folder: RunFolder) -> None:
    """Figure 25: each colour is one rating, stacked from the left."""
    (panel,) = figure_of(preferences(folder))
    batches = [label.get_text() for label in panel.get_yticklabels()]
    drawn = {
        str(bars.get_label()): dict(zip(batches, (bar.get_width() for bar in bars), strict=True))
        for bars in panel.containers
    }
    assert list(drawn) == list(RATINGS)
    for rating, first, last, count in zip(
        RATINGS, (18.3, 27.7, 29.0, 25.0), (9.0, 21.3, 31.2, 38.5), (520, 470, 410, 400), strict=True
    ):
        assert drawn[rating] == pytest.approx(
            {"paper, first batch": first, "paper, last batch": last}
            | {f"round-{k}": 100 * count / 1800 for k in (1, 2)}
        )


def test_data_audit(tables: dict[str, list[ReportTable]]) -> None:
    sources, filters, languages, pronouns, terms = tables["data"]
    expected = {
        "read": "9,000",
        "exact duplicate": "0",
        "near duplicate": "700",
        "personal information": "120",
        "quality": "310",
        "kept": "7,870",
        "licence": "CC0",
    }
    assert {name: sources.cell("animals", column=name) for name in expected} == expected
    assert filters.cell("near duplicate", column="Precision") == "99.1 %"
    assert filters.cell("near duplicate", column="Recall") == "97.8 %"
    for table, row, paper, ours in (
        (languages, "es", "0.13 %", "2.10 %"),
        (pronouns, "she", "28.45 %", "10.00 %"),
        (pronouns, "he", "50.73 %", "14.00 %"),
        (terms, "religion", "7.93 %", "2.00 %"),
    ):
        assert table.cell(row, column="Paper") == paper
        assert table.cell(row, column="This run") == ours


def test_training_cost(tables: dict[str, list[ReportTable]]) -> None:
    speed, energy = tables["training-cost"]
    expected = {
        "Tokens/s": "6,120",
        "MFU": "52.3 %",
        "Time": "3 min 20 s",
        "waiting for data": "1.0 %",
        "measuring": "5.0 %",
        "saving": "3.0 %",
        "Peak memory": "3.00 GiB",
    }
    assert {name: speed.cell("models/sft", column=name) for name in expected} == expected
    spent = {"Energy": "0.0123 kWh", "CO2eq": "0.0052 kg", "PUE": "1.1", "kg per kWh": "0.385"}
    assert {name: energy.cell("models/sft", column=name) for name in spent} == spent


def test_an_estimate_too_small_to_mean_anything_is_not_printed(tmp_path: Path) -> None:
    energy = {"kwh": 0.0002, "tco2eq": 7e-08, "pue": 1.1, "grid_kg_per_kwh": 0.385, "source": "estimated"}
    seconds = {"wall": 5.0, "data": 0.1, "evaluation": 0.1, "checkpoint": 0.1}
    artifact(tmp_path / "sft", "model", {"system": {"seconds": seconds, "energy": energy}})
    _, table = training_cost(RunFolder.scan(tmp_path)).blocks
    assert isinstance(table, Table)
    (row,) = table.rows
    assert [cell.text for cell in row[1:3]] == ["< 0.001 kWh", "< 0.001 kg"]
