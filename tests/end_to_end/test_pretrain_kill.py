"""SIGKILL at moments drawn from a seed, while pretraining on one process and on two, and the weights of a quiet run.

Each case kills an attempt, some in the middle of writing a state, then lets the same command end.
"""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from end_to_end.program import finish, start
from pretraining.folders import RECIPE, write_shards, write_tokenizer
from training.parallel.launch import torchrun

N_STEPS = 240
EVERY = 15
_DRAW = random.Random(0)
MOMENTS = [
    f"{n} after {EVERY * _DRAW.randint(1, N_STEPS // EVERY - 3)} and {_DRAW.random() * 0.2:.3f} s"
    for n in [1, 2] * 8
]
"""Number of processes, the update whose state is waited for, and a little longer."""
WRITES = ["1 writing step-30", "2 writing step-60", "1 renaming step-45", "2 one rank at step-30"]
FAST = [MOMENTS[0], WRITES[1]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_tokenizer(folder / "tokenizer")
    write_shards(folder / "tokens", folder / "tokenizer")
    recipe = RECIPE.replace("total_steps = 30", f"total_steps = {N_STEPS}")
    (folder / "tiny.toml").write_text(
        recipe.replace("checkpoint_every_steps = 5", f"checkpoint_every_steps = {EVERY}")
    )
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path) -> dict[int, bytes]:
    """Weights by number of processes: sums over two differ in their last bits from sums over one."""
    weights = {}
    for n in (1, 2):
        ended = finish(launch(inputs, inputs / f"quiet-{n}", n))
        assert ended.exit_code == 0, ended.stderr
        weights[n] = (inputs / f"quiet-{n}" / "model.safetensors").read_bytes()
    return weights


def launch(inputs: Path, out: Path, n: int) -> subprocess.Popen[str]:
    given = [
        inputs / "tiny.toml",
        "--data",
        inputs / "tokens",
        "--tokenizer",
        inputs / "tokenizer",
        "--out",
        out,
    ]
    command = ["pretrain", *given, "--threads", 1, "--json"]
    return start(*command) if n == 1 else torchrun("-m", "puna", *command, n=n)


def kill_all(process: subprocess.Popen[str], *, only_last: bool = False) -> None:
    """SIGKILL to the launcher and its workers, which have sessions of their own; or to the last worker alone."""
    workers = [
        int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    for pid in workers[-1:] if only_last else [process.pid, *workers]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)


def wait_for(process: subprocess.Popen[str], state: Path, pattern: str, *, at_least: int = 0) -> None:
    deadline = time.monotonic() + 300
    while not any(at_least <= saved_step(path) for path in state.glob(pattern)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"{pattern} was never seen"
        time.sleep(0.0002)


def saved_step(path: Path) -> int:
    """0 for what is inside a state that is being written."""
    return int(path.name.removeprefix("step-")) if path.name.startswith("step-") else 0


def kill_at(moment: str, process: subprocess.Popen[str], state: Path) -> None:
    _, how, *rest = moment.split()
    if how == "after":
        wait_for(process, state, "step-*", at_least=int(rest[0]))
        time.sleep(float(rest[2]))
    elif how == "writing":
        wait_for(process, state, f".{rest[0]}.partial/*.distcp")
    elif how == "renaming":
        wait_for(process, state, f".{rest[0]}.partial/checksums.json")
    else:
        wait_for(process, state, rest[-1])
    kill_all(process, only_last=how == "one")


def run_case(inputs: Path, out: Path, moment: str, expected: dict[int, bytes]) -> None:
    n = int(moment.split()[0])
    kill_at(moment, launch(inputs, out, n), out.with_name(f".{out.name}.partial") / "state")
    ended = finish(launch(inputs, out, n))
    assert ended.exit_code == 0, ended.stderr
    assert (out / "model.safetensors").read_bytes() == expected[n]


@pytest.mark.parametrize("moment", FAST)
def test_killed_it_ends_with_the_same_bits(inputs, undisturbed, tmp_path: Path, moment: str) -> None:
    run_case(inputs, tmp_path / "model", moment, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [*MOMENTS, *WRITES])
def test_killed_at_twenty_moments_it_ends_with_the_same_bits(
    inputs, undisturbed, tmp_path: Path, moment: str
) -> None:
    run_case(inputs, tmp_path / "model", moment, undisturbed)


def test_a_state_of_two_processes_goes_on_with_one(inputs: Path, undisturbed, tmp_path: Path) -> None:
    out = tmp_path / "model"
    state = tmp_path / ".model.partial" / "state"
    kill_at("2 after 30 and 0.0 s", launch(inputs, out, 2), state)
    saved = max(int(path.name.removeprefix("step-")) for path in state.glob("step-*"))
    ended = finish(launch(inputs, out, 1))
    assert ended.exit_code == 0, ended.stderr
    assert saved > 0
    assert "continuing the interrupted build" in ended.stderr
    assert (out / "model.safetensors").stat().st_size == len(undisturbed[1])


def test_sigterm_to_one_process_stops_both_with_a_state(inputs: Path, tmp_path: Path) -> None:
    """As torchrun's agent passes it on: both save together and leave with exit code 0."""
    out = tmp_path / "model"
    process = launch(inputs, out, 2)
    state = tmp_path / ".model.partial" / "state"
    wait_for(process, state, "step-15")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGTERM)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr.count("the training state is saved") >= 1
    assert not out.exists()
