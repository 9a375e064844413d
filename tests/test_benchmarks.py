"""Benchmarks say what they compare: ratios in one direction, medians, and one JSON line of the agreed shape."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import harness
def fast():
    return lambda: {{"speed": 4.0, "seconds": 1.0}}
def slow():
    values = iter([9.0, 1.0, 2.0, 3.0])
    return lambda: {{"speed": next(values), "seconds": 2.0}}
if __name__ == "__main__":
    found = harness.interleaved({{"ours": fast, "peer": slow}}, rounds=3)
    ours, peer = found["ours"], found["peer"]
    print("not the last line")
    harness.finish("x", [
        harness.compare("speed", ours["speed"], peer["speed"], unit="MB/s"),
        harness.compare("seconds", ours["seconds"], peer["seconds"], unit="s", is_higher_better=False),
    ], save=False)
"""
KEYS = ["name", "ours", "peer", "ratio", "unit", "n", "spread", "hardware", "commit"]


def test_rounds_alternate_between_processes_and_end_in_json(tmp_path: Path) -> None:
    script = tmp_path / "x.py"
    script.write_text(SCRIPT.format(folder=str(FOLDER)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    speed, seconds = json.loads(done.stdout.splitlines()[-1])
    assert list(speed) == KEYS
    assert (speed["ours"], speed["peer"], speed["ratio"], speed["n"]) == (4.0, 2.0, 2.0, 3)
    assert speed["spread"] == 0.5  # of the peer: quartiles 1.5 and 2.5 over 2; its warm-up round is dropped
    assert seconds["ratio"] == 2.0


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "results").glob("tokenizer_*.json")), ids=lambda path: path.name
)
def test_kept_results_have_the_shape(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"name", "date", "hardware", "commit", "figures"} <= set(record)
    for figure in record["figures"]:
        assert list(figure) == KEYS
