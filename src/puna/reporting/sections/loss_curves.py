"""Figure 5: training loss against tokens for several sizes, and against the operations they cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes

from puna.reporting.blocks import Cell, Drawing, Table, plain
from puna.reporting.paper_numbers import FINAL_LOSSES
from puna.reporting.run_folder import Artifact
from puna.reporting.style import SERIES, describe, legend, new_figure, shade

__all__ = ["Points", "held_out", "loss_by_tokens", "thin"]

MAX_POINTS = 400
"""More points than this are averaged in equal runs: a page needs no more."""

HELD_OUT_SPLITS = ("validation", "held_out")
PAPER_ENDS = ", ".join(f"{model} {loss}" for model, loss in FINAL_LOSSES.items())
"""The end of each curve of Figure 5, in words."""

SIZES_DIFFER = 1.2
"""Models whose parameters differ by more are called sizes."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Curve:
    """One model's training against tokens."""

    name: str
    tokens: list[float]
    losses: list[float]
    held_out: Points
    flops_per_token: float | None
    n_parameters: int | None


def loss_by_tokens(models: Mapping[str, Artifact], *, name: str) -> list[Drawing | Table]:
    """Loss against tokens and a table of ends; for models of several sizes also loss against operations.

    Nothing for models whose logs do not count tokens, as those of older versions.
    """
    curves = [curve for label, artifact in models.items() if (curve := _read(label, artifact))]
    if not curves:
        return []
    are_sizes = _are_sizes(curves)
    if are_sizes:
        curves.sort(key=lambda curve: curve.n_parameters or 0)
    has_flops = are_sizes and all(curve.flops_per_token for curve in curves)
    figure, panels = new_figure(1 + has_flops, width=9.6 if has_flops else 7.6, height=3.6)
    is_ordered = are_sizes or len(curves) == 1
    for index, curve in enumerate(curves):
        colour = shade(index + 1, len(curves) + 1) if is_ordered else SERIES[index % len(SERIES)]
        _line(panels[0], curve, colour, 1.0)
        if has_flops and curve.flops_per_token:
            _line(panels[1], curve, colour, curve.flops_per_token)
    describe(panels[0], title="by tokens", x="training tokens, millions", y="loss, nats per token")
    panels[0].xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
    if has_flops:
        describe(panels[1], title="by operations", x="training FLOPs", y="loss, nats per token")
        panels[1].set_xscale("log")
        panels[1].minorticks_off()
        panels[1].set_xlim(left=_first_flops(curves))
    panels[0].margins(x=0.02)
    for panel in panels:
        panel.set_ylim(*_limits(curves))
    legend(panels[0])
    paper = f" The paper's models end near {PAPER_ENDS} nats after 2 T tokens of their own data."
    caption = "Lines are training loss, dots held-out loss." + (paper if is_ordered else "")
    drawing = Drawing(name, figure, caption, "Training loss against tokens", wide=has_flops)
    return [drawing, _table(curves)] if len(curves) > 1 else [drawing]


def _are_sizes(curves: list[_Curve]) -> bool:
    """Whether the models differ in size rather than in something else."""
    counts = [curve.n_parameters or 0 for curve in curves]
    return len(curves) > 1 and max(counts) > SIZES_DIFFER * min(counts)


def _first_flops(curves: list[_Curve]) -> float:
    """Where the first of the curves comes into sight."""
    starts = [c.tokens[len(c.tokens) // 20] * (c.flops_per_token or 0) for c in curves]
    return 0.9 * min(starts)


def _read(label: str, artifact: Artifact) -> _Curve | None:
    tokens, losses = dict(artifact.curve("tokens")), dict(artifact.curve("loss"))
    steps = [step for step in losses if step in tokens]
    if not steps:
        return None
    measured = [(tokens[step], loss) for step, loss in held_out(artifact) if step in tokens]
    xs, ys = thin([(tokens[step], losses[step]) for step in steps])
    metrics = artifact.metrics
    return _Curve(label, xs, ys, measured, metrics.get("flops_per_token"), metrics.get("n_parameters"))


def _line(panel: Axes, curve: _Curve, colour: str, scale: float) -> None:
    size = f", {_millions(curve.n_parameters)}" if curve.n_parameters else ""
    xs = [tokens * scale for tokens in curve.tokens]
    panel.plot(xs, curve.losses, color=colour, linewidth=1.6, label=f"{curve.name}{size}")
    if curve.held_out:
        dots, losses = thin(curve.held_out)
        panel.plot(
            [tokens * scale for tokens in dots], losses, color=colour, linewidth=0, marker="o", markersize=4
        )


def _limits(curves: list[_Curve]) -> tuple[float, float]:
    """From below the lowest loss to above what all curves have after a fiftieth: the first fall is left out."""
    shown = [loss for curve in curves for loss in curve.losses[len(curve.losses) // 20 :]]
    low, high = min(shown), max(shown)
    room = 0.06 * max(high - low, 0.1)
    return low - room, high + room


def _table(curves: list[_Curve]) -> Table:
    rows = tuple(
        (
            Cell(curve.name),
            Cell(_millions(curve.n_parameters)),
            plain(curve.tokens[-1] / 1e6, digits=1, unit="M"),
            Cell(f"{curve.flops_per_token * curve.tokens[-1]:.2e}" if curve.flops_per_token else "\u2013"),
            plain(curve.losses[-1], digits=3),
            plain(curve.held_out[-1][1] if curve.held_out else None, digits=3),
        )
        for curve in curves
    )
    columns = ("Model", "Parameters", "Tokens", "FLOPs", "Training loss", "Held-out loss")
    return Table("Where the curves end; losses in nats per token.", columns, rows)


def _millions(n: int | None) -> str:
    if n is None:
        return "\u2013"
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.2f} M"


def held_out(artifact: Artifact) -> Points:
    """Held-out loss by step."""
    for split in HELD_OUT_SPLITS:
        if found := artifact.curve("loss", split):
            return found
    return []


def thin(points: Points) -> tuple[list[float], list[float]]:
    """At most MAX_POINTS of them: the last x and the mean y of equal runs."""
    size = -(-len(points) // MAX_POINTS)
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    return [chunk[-1][0] for chunk in chunks], [sum(y for _, y in chunk) / len(chunk) for chunk in chunks]
