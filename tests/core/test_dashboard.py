"""The dashboard says what it was given, fits the terminal, and its chart rises where the values do."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from puna.core.dashboard import Dashboard, format_bytes, sparkline

LEVELS = " .:#"


def shown(dashboard: Dashboard, width: int = 100, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(dashboard)
    return console.file.getvalue()


@pytest.fixture
def dashboard() -> Dashboard:
    filled = Dashboard()
    for step in range(200):
        filled.update("train", {"loss": 5 - step / 50, "lr": 3e-4, "grad_norm": 0.75, "tokens": 4096 * step})
    filled.update("system", {"tokens_per_second": 6120.4, "mfu": None, "rss_bytes": 3 * 2**30})
    filled.update("validation", {"loss": 1.5})
    return filled


def test_numbers_are_named(dashboard: Dashboard) -> None:
    text = shown(dashboard)
    for part in ("loss 1.02", "held out 1.5", "learning rate 3.00e-04", "tokens/s 6,120", "memory 3.0 GiB"):
        assert part in text
    assert "MFU unknown" in text
    assert "last checkpoint none yet" in text
    assert "GPU memory" not in text


def test_checkpoints_and_warnings_stay_in_sight(dashboard: Dashboard) -> None:
    for number in range(5):
        dashboard.warn(f"spike number {number}")
    dashboard.saved(1500)
    text = shown(dashboard)
    assert "last checkpoint step 1,500, 0 s ago" in text
    assert ["spike number 1" in text, "spike number 2" in text, "spike number 4" in text] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("width", [40, 62, 100, 200])
def test_it_fits_the_terminal(dashboard: Dashboard, width: int) -> None:
    dashboard.warn("a long warning " * 20)
    lines = shown(dashboard, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 20


def test_an_ascii_terminal_gets_ascii(dashboard: Dashboard) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    console.print(dashboard)  # would raise UnicodeEncodeError
    stream.seek(0)
    assert "#" in stream.read()


def test_nothing_yet_prints_nothing() -> None:
    assert shown(Dashboard()).strip() == ""


def test_a_ramp_is_a_ramp() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5], 6, 2, LEVELS) == ["   .:#", ".:####"]
    assert sparkline([1.0], 3, 1, LEVELS) == ["..."]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 80), st.integers(1, 5))
def test_a_chart_has_its_size_and_its_order(values: list[float], width: int, height: int) -> None:
    rows = sparkline(values, width, height, LEVELS)
    assert [len(row) for row in rows] == [width] * height
    heights = [sum(LEVELS.index(row[x]) for row in rows) for x in range(width)]
    assert min(heights) >= 1
    n = len(values)
    if n <= width:
        drawn = [values[i * n // width] for i in range(width)]
        pairs = zip(drawn, heights, strict=True)
        ordered = [height for _, height in sorted(pairs)]
        assert ordered == sorted(ordered)


def test_bytes_are_readable() -> None:
    assert [format_bytes(n) for n in (812 * 2**20, 3.5 * 2**30)] == ["812 MiB", "3.5 GiB"]
