"""Figures are the same each time, follow the page's colours, and lose no probability mass."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from puna.reporting.style import SERIES, density, describe, new_figure, shade, to_png, to_svg


def _drawn() -> object:
    figure, (panel,) = new_figure()
    panel.plot([0, 1, 2], [1, 0, 3], color=SERIES[0])
    describe(panel, title="<b>title</b>", x="steps", y="loss")
    return figure


def test_svg_is_deterministic_and_themed() -> None:
    first, second = to_svg(_drawn(), name="one"), to_svg(_drawn(), name="one")
    assert first == second
    assert "var(--series-1, #2567a8)" in first
    assert "&lt;b&gt;" in first
    assert "<style" not in first
    assert "<metadata" not in first


def test_png_is_deterministic() -> None:
    assert to_png(_drawn(), dots_per_inch=40) == to_png(_drawn(), dots_per_inch=40)


def test_shades_run_from_first_to_last() -> None:
    colours = [shade(i, 5) for i in range(5)]
    assert len(set(colours)) == 5
    assert shade(0, 1) == colours[0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_density_integrates_to_one(values: list[float]) -> None:
    at = np.linspace(0, 1, 2001)
    mass = float(np.trapezoid(density(values, at), at))
    assert abs(mass - 1) < 1e-3
