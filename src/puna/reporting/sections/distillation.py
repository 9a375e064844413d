"""Safety context distillation: the safety score it gained, and what the reward gate kept (Figure 16)."""

import numpy as np

from puna.reporting.blocks import DASH, Block, Cell, Drawing, Section, Table, percent, plain
from puna.reporting.paper_numbers import DISTILLATION_MEDIANS
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.style import FAINT, SERIES, describe, legend, new_figure

__all__ = ["context_distillation"]


def context_distillation(run: RunFolder) -> Section:
    """Scores without and with the preprompt; only answers that gained are trained on."""
    head = ("distillation", "Safety context distillation", "Section 4.2.4, Figure 16")
    found = run.of_kind("distillation_data")
    if not found:
        return Section.absent(*head, "no context distillation in this run")
    blocks: list[Block] = []
    for artifact in found:
        blocks += [_table(artifact), *_drawing(artifact)]
    return Section(*head, tuple(blocks), {artifact.name: artifact.metrics for artifact in found})


def _table(artifact: Artifact) -> Table:
    found = artifact.metrics
    rows = [
        (
            Cell(f"median safety score, {kind}"),
            plain(DISTILLATION_MEDIANS.get(kind), digits=2),
            plain(value, digits=3),
        )
        for kind, value in found.get("median_safety", {}).items()
    ]
    rows.append((Cell("answers kept by the gate"), Cell(DASH), percent(found.get("kept_fraction"))))
    caption = f"Safety RM scores of {found.get('n_prompts', 0):,} adversarial prompts, by kind of preprompt."
    return Table(caption, ("", "Paper (by eye)", "This run"), tuple(rows))


def _drawing(artifact: Artifact) -> list[Drawing]:
    rows = artifact.rows("attempts.jsonl")
    if not rows:
        return []
    before = np.array([row["safety_without"] for row in rows])
    gain = np.array([row["safety_with"] for row in rows]) - before
    kept = np.array([row["is_kept"] for row in rows], dtype=bool)
    figure, (panel,) = new_figure(width=6.4, height=3.6)
    panel.axhline(0, color=FAINT, linewidth=1)
    for chosen, colour, name in ((kept, SERIES[2], "kept"), (~kept, SERIES[1], "left out")):
        panel.scatter(before[chosen], gain[chosen], s=15, color=colour, alpha=0.55, linewidths=0, label=name)
    describe(panel, x="safety score without preprompt", y="gain with it")
    legend(panel)
    caption = "Gain against the starting score. In the paper weak answers gain and strong ones lose, hence the gate."
    return [Drawing(f"figure_16_{artifact.path.name}", figure, caption, "Gain against the score before")]
