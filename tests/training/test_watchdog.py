"""A stall is reported once with stacks, progress is not; by a clock that only moves when told."""

import threading
from pathlib import Path

import pytest

from puna.training.watchdog import Watchdog


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_stall_is_reported_once_and_the_next_one_again(tmp_path: Path, clock: Clock) -> None:
    watchdog = Watchdog(tmp_path, rank=3, stall_seconds=60, clock=clock)
    watchdog.note("micro-batch 2 of 4 of update 17")
    reports = []
    for seconds in (59, 1, 100, 100):
        clock.now += seconds
        watchdog.look()
        path = tmp_path / "stall-rank-3.txt"
        reports.append(path.read_text().count("has not moved") if path.exists() else 0)
    assert reports == [0, 1, 1, 1], "once a stall, when it has lasted for so long"
    assert "rank 3" in path.read_text()
    assert "has not moved for 60 s: micro-batch 2 of 4 of update 17" in path.read_text()
    watchdog.note("update 18")
    clock.now += 60
    watchdog.look()
    assert path.read_text().count("has not moved") == 2


def test_progress_is_no_stall(tmp_path: Path, clock: Clock) -> None:
    watchdog = Watchdog(tmp_path, rank=0, stall_seconds=60, clock=clock)
    for step in range(100):
        clock.now += 59
        watchdog.look()
        watchdog.note(f"update {step}")
    assert list(tmp_path.iterdir()) == []


def test_the_thread_writes_down_every_stack(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training stands in a named place until the report is there, however long that takes."""
    reported = threading.Event()
    report = Watchdog._report

    def report_and_tell(watchdog: Watchdog, seconds: float) -> None:
        report(watchdog, seconds)
        reported.set()

    monkeypatch.setattr(Watchdog, "_report", report_and_tell)

    def wait_in_a_named_place() -> bool:
        clock.now += 1000
        return reported.wait(timeout=300)

    with Watchdog(tmp_path, rank=3, stall_seconds=0.01, clock=clock) as watchdog:
        watchdog.note("micro-batch 2 of 4 of update 17")
        assert wait_in_a_named_place(), "the thread never looked"
    assert "wait_in_a_named_place" in (tmp_path / "stall-rank-3.txt").read_text()
    stderr = capsys.readouterr().err
    assert "wait_in_a_named_place" in stderr
    assert str(tmp_path / "stall-rank-3.txt") in stderr
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_none_watches_nothing(tmp_path: Path, clock: Clock) -> None:
    with Watchdog(tmp_path, rank=0, stall_seconds=None, clock=clock) as watchdog:
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}
        clock.now += 1e9
        watchdog.look()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_standard_error(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    watchdog = Watchdog(tmp_path / "absent", rank=0, stall_seconds=60, clock=clock)
    clock.now += 61
    watchdog.look()
    assert "has not moved" in capsys.readouterr().err
