"""One look for every figure, and its two renderings: SVG that follows the page's theme, PNG on white."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = [
    "FAINT",
    "GRID",
    "INK",
    "MUTED",
    "SERIES",
    "SURFACE",
    "density",
    "describe",
    "legend",
    "name_line",
    "name_points",
    "new_figure",
    "shade",
    "to_png",
    "to_svg",
]

INK = "#1b2733"
MUTED = "#5b6b7a"
FAINT = "#8d9aa6"
GRID = "#dde3e8"
SURFACE = "#f3f6f8"
SERIES = ("#2567a8", "#c9601f", "#2c8a5c", "#8651a8", "#b0364e", "#7a6a1c")
"""Categorical colours; told apart also with red-green colour blindness."""
_RAMP = ("#9aa7b2", "#9cc4e6", "#66a0d4", "#2a6bab", "#0e3c70")

_ROLES = {INK: "ink", MUTED: "muted", FAINT: "faint", GRID: "grid", SURFACE: "surface"}
_ROLES |= {colour: f"series-{i}" for i, colour in enumerate(SERIES, start=1)}
_ROLES |= {colour: f"ramp-{i}" for i, colour in enumerate(_RAMP, start=1)}
_RC: Any = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "svg.fonttype": "none",
    "path.simplify": True,
}


def new_figure(n_columns: int = 1, *, width: float = 7.6, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with a row of panels in the common style; no global pyplot state is touched."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = list(figure.subplots(1, n_columns, squeeze=False)[0])
        for panel in axes:
            _dress(panel)
    return figure, axes


def _dress(panel: Axes) -> None:
    panel.set_facecolor("none")
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=MUTED, labelsize=8.5, length=3)
    panel.grid(True, color=GRID, linewidth=0.7)
    panel.set_axisbelow(True)


def shade(index: int, count: int) -> str:
    """A colour for an ordered series such as versions: grey first, then ever deeper blue."""
    return _RAMP[round(index * (len(_RAMP) - 1) / max(1, count - 1))]


def describe(panel: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title and axis names, all in the same sizes."""
    panel.set_title(title, fontsize=10, fontweight="bold", color=INK)
    panel.set_xlabel(x, fontsize=9, color=MUTED)
    panel.set_ylabel(y, fontsize=9, color=MUTED)


def density(values: Sequence[float], at: NDArray[np.float64], *, width: float = 0.045) -> NDArray[np.float64]:
    """Density of values in [0, 1]: Gaussian kernels, mirrored at both ends so that no mass is lost there."""
    points = np.asarray(values, dtype=np.float64)
    mirrored = np.concatenate([points, -points, 2 - points])
    kernels = np.exp(-0.5 * ((at[:, None] - mirrored) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernels.sum(axis=1) / max(1, len(points))


def legend(panel: Axes, *, columns: int = 1, place: Any = "best") -> None:
    """A frameless legend in the text colour."""
    panel.legend(frameon=False, fontsize=8.5, labelcolor=INK, ncols=columns, loc=place)


def to_png(figure: Figure, *, dots_per_inch: int = 160) -> bytes:
    """PNG on a white ground, for Markdown."""
    sink = io.BytesIO()
    with matplotlib.rc_context(_RC):
        FigureCanvasAgg(figure).print_figure(
            sink, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None}
        )
    return sink.getvalue()


def to_svg(figure: Figure, *, name: str) -> str:
    """SVG to be placed inside HTML: colours become CSS variables, ids are unique to the figure.

    The layout is settled here; a later rendering keeps it.
    """
    sink = io.BytesIO()
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_figure(
            sink, format="svg", facecolor="none", edgecolor="none", metadata=_no_metadata()
        )
    figure.set_layout_engine("none")
    text = sink.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*pt" ', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*pt" ', r"\1", text, count=1)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1sans-serif", text)
    return re.sub("|".join(_ROLES), lambda hit: f"var(--{_ROLES[hit[0]]}, {hit[0]})", text)


def _no_metadata() -> dict[str, None]:
    return dict.fromkeys(("Date", "Creator", "Format", "Type"))


def name_line(panel: Axes, point: tuple[float, float], text: str) -> None:
    """Name a line at its last point, where the eye already is."""
    panel.annotate(
        text,
        point,
        xytext=(6, 0),
        textcoords="offset points",
        color=INK,
        fontsize=8.5,
        va="center",
        annotation_clip=False,
    )


_PLACES = {"right": ((7, 0), "left", "center"), "left": ((-7, 0), "right", "center")}
_PLACES |= {"above": ((0, 6), "center", "bottom"), "below": ((0, -6), "center", "top")}
_OFFSETS = {"right": (0.12, 0.0), "left": (-0.12, 0.0), "above": (0.0, 0.055), "below": (0.0, -0.055)}
"""From a point to the middle of its name, in shares of the axes."""


def name_points(panel: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Name each point on the side where other points and names leave most room."""
    places = np.array([point[1:] for point in points], dtype=float)
    low, span = places.min(axis=0), np.ptp(places, axis=0)
    taken = list((places - low) / np.where(span > 0, span, 1))
    for index, (text, x, y) in enumerate(points):
        middles = {side: taken[index] + np.array(offset) for side, offset in _OFFSETS.items()}
        others = np.array(taken[:index] + taken[index + 1 :])
        side = max(middles, key=lambda s: min(1.0, np.hypot(*((others - middles[s]) / (0.2, 0.07)).T).min()))
        taken.append(middles[side])
        offset, horizontal, vertical = _PLACES[side]
        panel.annotate(
            text,
            (x, y),
            xytext=offset,
            textcoords="offset points",
            color=INK,
            fontsize=8.5,
            ha=horizontal,
            va=vertical,
        )
