"""A stall is reported once with stacks, progress is not."""

import time
from pathlib import Path

import pytest

from puna.training.watchdog import Watchdog


def test_a_stalled_process_writes_down_every_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait_in_a_named_place() -> None:
        time.sleep(0.5)

    with Watchdog(tmp_path, rank=3, stall_seconds=0.1) as watchdog:
        watchdog.note("micro-batch 2 of 4 of update 17")
        wait_in_a_named_place()
    text = (tmp_path / "stall-rank-3.txt").read_text()
    assert "rank 3" in text
    assert "micro-batch 2 of 4 of update 17" in text
    assert "wait_in_a_named_place" in text
    assert text.count("has not moved") == 1, "once a stall"
    stderr = capsys.readouterr().err
    assert "wait_in_a_named_place" in stderr
    assert str(tmp_path / "stall-rank-3.txt") in stderr


def test_progress_is_no_stall(tmp_path: Path) -> None:
    with Watchdog(tmp_path, rank=0, stall_seconds=0.6) as watchdog:
        for step in range(8):
            watchdog.note(f"update {step}")
            time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_none_watches_nothing(tmp_path: Path) -> None:
    with Watchdog(tmp_path, rank=0, stall_seconds=None):
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Watchdog(tmp_path / "absent", rank=0, stall_seconds=0.05):
        time.sleep(0.3)
    assert "has not moved" in capsys.readouterr().err
