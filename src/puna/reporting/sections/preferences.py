"""Human preference data: ratings (Figure 25), safety bins (Section 3.2.1) and statistics (Tables 6 and 26)."""

from typing import Any

from puna.core.records import RATINGS
from puna.reporting.blocks import DASH, Block, Cell, Drawing, Section, Table, plain
from puna.reporting.paper_numbers import DATA_STATISTICS, RATING_SHARES, SAFETY_BINS
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.style import INK, describe, new_figure, shade

__all__ = ["preferences"]

_STATISTICS = {
    "comparisons": "comparisons",
    "turns_per_dialog": "turns per dialog",
    "tokens_per_example": "tokens per example",
    "tokens_per_prompt": "per prompt",
    "tokens_per_response": "per response",
}


def preferences(run: RunFolder) -> Section:
    """What was compared, how clear the preferences were, how safe the pairs."""
    head = ("preferences", "Preference data", "Section 3.2.1, Tables 6 and 26, Figure 25")
    found = run.of_kind("preferences")
    if not found:
        return Section.absent(*head, "no preferences collected yet")
    shares = {_name(artifact): _shares(artifact.metrics.get("ratings", {})) for artifact in found}
    shares = {name: row for name, row in shares.items() if row}
    blocks: list[Block] = [_statistics(found)]
    if shares:
        blocks.append(_rating_drawing(shares))
    blocks += _safety_bins(found)
    numbers = {_name(artifact): artifact.metrics for artifact in found}
    return Section(*head, tuple(blocks), numbers)


def _name(artifact: Artifact) -> str:
    return artifact.labels.get("batch") or artifact.name


def _shares(counts: dict[str, Any]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def _statistics(found: list[Artifact]) -> Table:
    rows = [
        (
            Cell("paper, all batches"),
            *(_cell(DATA_STATISTICS.get(name)) for name in _STATISTICS),
            Cell("people"),
        )
    ]
    rows += [
        (Cell(f"ours, {_name(a)}"), *(_cell(a.metrics.get(name)) for name in _STATISTICS), Cell(_judges(a)))
        for a in found
    ]
    caption = "Size and length of the comparisons, and who judged them."
    return Table(caption, ("Batch", *_STATISTICS.values(), "judged by"), tuple(rows))


def _judges(artifact: Artifact) -> str:
    """Who compared; simulated annotators are counted, not named."""
    names = artifact.metrics.get("annotators", {})
    simulated = [name for name in names if name.startswith("simulated")]
    others = [name for name in names if name not in simulated]
    return ", ".join([f"{len(simulated)} simulated annotators"] * bool(simulated) + others) or DASH


def _cell(value: Any) -> Cell:
    if not isinstance(value, int | float):
        return Cell(DASH)
    return plain(value, digits=0 if isinstance(value, int) else 1)


def _rating_drawing(shares: dict[str, dict[str, float]]) -> Drawing:
    bars = {"paper, first batch": {r: x[0] / 100 for r, x in RATING_SHARES.items()}}
    bars |= {"paper, last batch": {r: x[1] / 100 for r, x in RATING_SHARES.items()}} | shares
    figure, (panel,) = new_figure(width=7.6, height=1.2 + 0.42 * len(bars))
    left = [0.0] * len(bars)
    for index, rating in enumerate(RATINGS):
        widths = [100 * row.get(rating, 0.0) for row in bars.values()]
        colour = shade(len(RATINGS) - index, len(RATINGS) + 1)
        panel.barh(list(bars), widths, left=left, height=0.66, color=colour, label=rating.replace("_", " "))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    panel.invert_yaxis()
    panel.grid(False)
    panel.tick_params(axis="y", labelcolor=INK, length=0)
    panel.set(xlim=(0, 100))
    describe(panel, x="share of comparisons, %")
    figure.legend(
        *panel.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    caption = "How clearly one answer was preferred. In the paper clear preferences get rarer as the model improves."
    return Drawing("figure_25", figure, caption, "Shares of the four ratings by batch")


def _safety_bins(found: list[Artifact]) -> list[Table]:
    ours = {_name(a): shares for a in found if (shares := _shares(a.metrics.get("safety", {})))}
    if not ours:
        return []
    rows = [(Cell("paper"), *(plain(x, digits=0, unit="%") for x in SAFETY_BINS.values()))]
    rows += [
        (Cell(f"ours, {name}"), *(plain(100 * shares.get(key, 0.0), unit="%") for key in SAFETY_BINS))
        for name, shares in ours.items()
    ]
    caption = (
        "Safety comparisons by bin; pairs whose chosen answer is unsafe and rejected one safe are dropped."
    )
    return [Table(caption, ("Batch", *(key.replace("_", " ") for key in SAFETY_BINS)), tuple(rows))]
