"""Benchmarks say what they compare: ratios in one direction, medians, and one JSON line of the agreed shape."""

import json
import os
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
    "path",
    sorted(p for kind in ("tokenizer", "sampling_cpu") for p in (FOLDER / "results").glob(f"{kind}_*.json")),
    ids=lambda path: path.name,
)
def test_kept_results_have_the_shape(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"name", "date", "hardware", "commit", "figures"} <= set(record)
    for figure in record["figures"]:
        assert list(figure) == KEYS


@pytest.mark.slow
@pytest.mark.real
def test_pretraining_beside_transformers_goes_half_by_half(tmp_path: Path) -> None:
    """Each half alone, then both from what they left: the same figures, and nothing is trained twice."""
    pytest.importorskip("transformers")
    small = ["--size", "tiny", "--data-scale", "0.02", "--tokens", "327680", "--threads", "1"]
    command = [sys.executable, str(FOLDER / "pretrain_real_cpu.py"), "--out", str(tmp_path), *small]

    def run(side: str) -> str:
        done = subprocess.run([*command, "--side", side], capture_output=True, text=True, check=True)
        return done.stdout

    assert run("ours") == "", "no figures before both halves are there"
    figures = json.loads(run("peer").splitlines()[-1])
    names = [figure["name"] for figure in figures]
    assert {"perplexity_books", "perplexity_python", "perplexity_all", "tokens_per_second"} <= set(names)
    assert all(list(figure) == KEYS for figure in figures)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ours").iterdir()}
    again = json.loads(run("both").splitlines()[-1])
    kept = [figure for figure in figures if figure["name"].startswith("perplexity")]
    assert [figure for figure in again if figure["name"].startswith("perplexity")] == kept
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ours").iterdir()}
    for figure in kept:
        assert 1 < figure["ours"] < 512, "better than a guess among 512 pieces"


PIECES = """
import json, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import harness
harness.RESULTS = Path({results!r})
if __name__ == "__main__":
    rounds = harness.earlier_rounds("x").get("ours", {{}}).get("speed", []) + [float(sys.argv[1])]
    figure = harness.compare("speed", rounds, [1.0] * len(rounds), unit="MB/s")
    harness.finish("x", [figure], save=True, rounds={{"ours": {{"speed": rounds}}}})
"""


def test_a_benchmark_in_pieces_adds_to_the_rounds_of_its_own_commit(tmp_path: Path) -> None:
    script = tmp_path / "x.py"
    script.write_text(PIECES.format(folder=str(FOLDER), results=str(tmp_path)))
    for value in ("1", "9", "2"):
        subprocess.run([sys.executable, script, value], capture_output=True, check=True)
    [path] = tmp_path.glob("x_*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["rounds"] == {"ours": {"speed": [1.0, 9.0, 2.0]}}
    assert record["figures"][0]["ours"] == 2.0
    path.write_text(json.dumps(record | {"commit": "another"}))
    subprocess.run([sys.executable, script, "5"], capture_output=True, check=True)
    assert json.loads(path.read_text(encoding="utf-8"))["rounds"] == {"ours": {"speed": [5.0]}}


def test_the_gpu_benchmark_runs_at_toy_size() -> None:
    """In eager mode on whatever is there; its numbers mean nothing."""
    command = [sys.executable, FOLDER / "pretrain_gpu.py", "--model", "tiny", "--eager", "--rounds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert [figure["name"] for figure in figures] == ["mfu_tiny", "tokens_per_second_tiny"]
    assert all(list(figure) == KEYS and figure["ours"] >= 0 for figure in figures)


def test_the_gpu_smoke_run_says_so_where_there_is_no_gpu() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, FOLDER / "gpu_smoke.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    [message] = done.stderr.splitlines()
    assert message.startswith("gpu_smoke: expected a CUDA device, got none.")
