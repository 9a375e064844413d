"""Cells read as people expect, and a drawing's file name cannot leave its folder."""

import pytest

from puna.reporting.blocks import DASH, Cell, Drawing, Table, percent, plain, seconds
from puna.reporting.style import new_figure


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3661, "1 h 01 min")]
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_percent_scales_value_and_interval() -> None:
    assert percent(0.125, [0.1, 0.15, 80]) == Cell("12.5 %", f"10.0 {DASH} 15.0")
    assert percent(None) == plain(None) == Cell(DASH)
    assert plain(1234567, digits=0) == Cell("1,234,567")


def test_only_long_cells_are_text_columns() -> None:
    table = Table("t", ("a", "b", "c"), ((Cell("x" * 40), Cell("1"), Cell("y" * 40)),))
    assert table.text_columns == {2}


def test_file_name_stays_in_its_folder() -> None:
    drawing = Drawing("ppo_../../evil", new_figure()[0], "", "")
    assert drawing.file_name == "ppo_------evil.png"
