"""The log keeps what was written, once, through crashes and resumes, and TensorBoard shows the same."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from puna.core.errors import DataError
from puna.core.metrics import MetricsLog, read_metrics


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard reads it."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(scalar.step, round(scalar.value, 4)) for scalar in events.Scalars(tag)]


def test_rows_and_tensorboard_agree(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, "train", loss=2.5, phase="warm-up")
    log.write(1, "test", loss=3.0, accuracy=None)
    log.write(2, "train", loss=float("nan"))
    log.close()
    log.close()
    assert read_metrics(log.path) == [
        {"step": 1, "split": "train", "loss": 2.5, "phase": "warm-up"},
        {"step": 1, "split": "test", "loss": 3.0, "accuracy": None},
        {"step": 2, "split": "train", "loss": None},
    ]
    assert shown(tmp_path, "train/loss") == [(1, 2.5)]
    assert shown(tmp_path, "test/loss") == [(1, 3.0)]


def test_every_row_is_on_disk_before_close(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(1, "train", loss=2.5)
    assert len(read_metrics(log.path)) == 1
    assert not (tmp_path / "tensorboard").exists()
    log.close()


def test_resume_shows_no_step_twice(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path)
    for step in range(1, 6):
        first.write(step, "train", loss=float(step))
    first.close()
    second = MetricsLog(tmp_path)
    second.truncate_after(3)
    for step in (4, 5):
        second.write(step, "train", loss=step + 0.5)
    second.close()
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (5, 5.5)]
    assert [(row["step"], row["loss"]) for row in read_metrics(second.path)] == expected
    assert shown(tmp_path, "train/loss") == expected


@given(
    n_steps=st.integers(1, 12),
    checkpoint_every=st.integers(1, 5),
    kills=st.lists(st.floats(0, 1), max_size=3),
)
def test_killed_anywhere_the_log_ends_as_if_never_killed(
    tmp_path_factory: pytest.TempPathFactory, n_steps: int, checkpoint_every: int, kills: list[float]
) -> None:
    """Each attempt resumes at its last checkpoint; a kill leaves any share of the file's bytes."""
    folder = tmp_path_factory.mktemp("log")
    path = folder / "metrics.jsonl"

    def attempt() -> None:
        log = MetricsLog(folder, tensorboard=False)
        resumed_at = len(read_metrics(path)) // checkpoint_every * checkpoint_every
        log.truncate_after(resumed_at)
        for step in range(resumed_at + 1, n_steps + 1):
            log.write(step, "train", loss=1 / step)
        log.close()

    for share in kills:
        attempt()
        content = path.read_bytes()
        path.write_bytes(content[: round(share * len(content))])
    attempt()
    expected = [{"step": step, "split": "train", "loss": 1 / step} for step in range(1, n_steps + 1)]
    assert read_metrics(path) == expected


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\n{"step": 2, "sp')
    assert [row["step"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"split": "train"}', '{"step": 1}'])
def test_broken_earlier_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "split": "train"}}\n{line}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_rows_are_standard_json(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(1, "train", a=float("inf"), b=float("-inf"))
    log.close()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(log.path.read_text(), parse_constant=refuse)["a"] is None
