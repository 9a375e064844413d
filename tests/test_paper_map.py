"""docs/paper_map.md names real files: a reader with the paper open is never sent to a file that moved."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "---" not in line
]
ENTRIES = [row for row in ROWS if row[1:] != ["file", "test", "status"]]
STATUSES = ("done", "stand-in", "shown", "our choice", "open")


def paths(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: row[0][:60])
def test_every_path_exists(row: list[str]) -> None:
    assert len(row) == 4
    _, files, tests, status = row
    assert status.startswith(STATUSES)
    assert bool(paths(files)) != status.startswith("open")
    assert all(name.startswith("src/puna/") and (ROOT / name).is_file() for name in paths(files))
    assert all(name.startswith("tests/") and (ROOT / name).is_file() for name in paths(tests))


def test_every_stage_is_on_the_map() -> None:
    named = {Path(name).parts[2] for row in ENTRIES for name in paths(row[1])}
    stages = {"pretraining_data", "pretraining", "supervised_finetuning", "human_feedback", "reward_modeling"}
    assert (
        stages | {"rlhf", "ghost_attention", "safety", "evaluation", "sandbox", "reporting", "planning"}
        <= named
    )
