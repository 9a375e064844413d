"""Plain lines off a terminal, a bar on one, and nothing at all when quiet."""

import io

import pytest
from rich.console import Console

from puna.core import progress
from puna.core.progress import Reporter, format_fields, format_seconds, quiet


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_most_every_interval(clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(Console(file=stream)).track("sft", 40, "steps") as tracker:
        for step in range(40):
            clock.now += 1
            tracker.advance(loss=2.0 - step / 100, tokens_per_second=5120.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "sft 10/40 steps, 1.0 steps/s, loss 1.91, tokens/second 5,120, 30.0 s left"
    assert [line.split()[1] for line in lines] == ["10/40", "20/40", "30/40", "40/40", "40/40"]


def test_short_work_prints_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(Console(file=stream)).track("x", None) as tracker:
        clock.now += 9
        tracker.advance()
    assert stream.getvalue() == ""


def test_rate_counts_this_run_only(clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(Console(file=stream)).track("x", 200, completed=100) as tracker:
        clock.now += 20
        tracker.advance(10)
    assert stream.getvalue().splitlines()[0] == "x 110/200 it, 2.0 s/it, 3:00 left"


def test_stages_are_numbered_and_timed(clock: Clock) -> None:
    stream = io.StringIO()
    reporter = Reporter(Console(file=stream))
    with reporter.stage("data"), reporter.stage("inner"):
        clock.now += 65
    with reporter.stage("sft"):
        reporter.log("[brackets] are text, not markup")
    assert stream.getvalue().splitlines() == [
        "[1] data",
        "[1] data: 1:05",
        "[2] sft",
        "[brackets] are text, not markup",
        "[2] sft: 0.0 s",
    ]


def test_a_failed_stage_is_not_called_done(clock: Clock) -> None:
    stream = io.StringIO()
    reporter = Reporter(Console(file=stream))
    with pytest.raises(ValueError, match="boom"), reporter.stage("data"):
        raise ValueError("boom")
    with reporter.stage("again"):
        pass
    assert stream.getvalue().splitlines()[:2] == ["[1] data", "[2] again"]


def test_terminal_shows_nested_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = Reporter(Console(file=stream))
    with reporter.track("outer", 2) as outer:
        with reporter.track("inner", 3) as inner:
            inner.advance(3, loss=1.5)
            assert reporter.bars is not None
            reporter.bars.refresh()
        outer.advance()
    assert reporter.bars is None
    assert "inner" in stream.getvalue()
    assert "loss 1.5" in stream.getvalue()


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().log("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    reporter = quiet()
    with reporter.stage("x"), reporter.track("y", 3) as tracker:
        clock.now += 60
        tracker.advance()
    assert capsys.readouterr() == ("", "")


def test_formats() -> None:
    assert format_fields({"loss": 0.123456, "n": 12, "tok_per_s": 12345.6, "phase": "warm-up"}) == (
        "loss 0.1235, n 12, tok/s 12,346, phase warm-up"
    )
    assert [format_seconds(s) for s in (4.21, 185, 3723)] == ["4.2 s", "3:05", "1:02:03"]
