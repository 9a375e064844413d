"""What every benchmark shares: one process a side, interleaved runs, medians, and the JSON that ends the output.

A benchmark gives a preparing function a side; each runs in a process of its own, so that neither warms the other's
caches or threads. Rounds alternate between the sides, so that a slow minute of the machine meets both.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = [
    "Figure",
    "Measure",
    "Prepare",
    "commit",
    "compare",
    "earlier_rounds",
    "finish",
    "hardware",
    "interleaved",
    "parser",
]

RESULTS = Path(__file__).parent / "results"
RESULTS_ASIDE = ":(top,exclude)benchmarks/results"

Measure = Callable[[], Mapping[str, float]]
"""Measures every figure of a side once: name to value."""
Prepare = Callable[[], Measure]
"""Loads what a side needs, in its own process; a function at the top of a module, so that it can be sent there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One claim: ours against a peer, in the same rounds on the same machine."""

    name: str
    ours: float
    """Median over the rounds."""
    peer: float
    """Median over the rounds; the peer's name is in the figure's."""
    ratio: float
    """Above 1, ours is better, whichever way the unit runs."""
    unit: str
    n: int
    """Rounds behind each median."""
    spread: float
    """Interquartile range over median, of the side where it is larger."""
    hardware: str
    commit: str


def interleaved(
    sides: Mapping[str, Prepare], *, rounds: int, warmups: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Values by side and figure, one a round; the warm-up rounds are dropped.

    Raises:
        RuntimeError: a side's process ended early; its own message is on standard error.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    values: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    try:
        for side, prepare in sides.items():
            pipes[side], far_end = context.Pipe()
            process = context.Process(target=_serve, args=(prepare, far_end), daemon=True)
            process.start()
            processes.append(process)
            far_end.close()
            _receive(pipes[side], side)  # ready: one side loads at a time
        for number in range(warmups + rounds):
            for side, pipe in pipes.items():
                pipe.send("measure")
                for name, value in _receive(pipe, side).items():
                    if number >= warmups:
                        values[side].setdefault(name, []).append(value)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return values


def compare(
    name: str, ours: Sequence[float], peer: Sequence[float], *, unit: str, is_higher_better: bool = True
) -> Figure:
    """The figure of two equally long lists of rounds."""
    medians = statistics.median(ours), statistics.median(peer)
    ratio = medians[0] / medians[1] if is_higher_better else medians[1] / medians[0]
    return Figure(
        name=name,
        ours=round(medians[0], 4),
        peer=round(medians[1], 4),
        ratio=round(ratio, 4),
        unit=unit,
        n=min(len(ours), len(peer)),
        spread=round(max(_spread(ours), _spread(peer)), 4),
        hardware=hardware(),
        commit=commit(),
    )


def finish(name: str, figures: Sequence[Figure], *, save: bool, **facts: Any) -> None:
    """Print the figures as the last line of standard output; with save, keep them under benchmarks/results too.

    Args:
        facts: What else the kept file should say, such as the data and the peers' versions.
    """
    rows = [asdict(figure) for figure in figures]
    if save:
        day = datetime.now(UTC).date().isoformat()
        record = {
            "name": name,
            "date": day,
            "hardware": hardware(),
            "commit": commit(),
            **facts,
            "figures": rows,
        }
        RESULTS.mkdir(exist_ok=True)
        _path(name, day).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows), flush=True)


def earlier_rounds(name: str) -> dict[str, dict[str, list[float]]]:
    """Values by side and figure that today's kept file says of this commit and machine, if it keeps its `rounds`.

    For benchmarks that are run in pieces; a file of another commit counts for nothing.
    """
    path = _path(name, datetime.now(UTC).date().isoformat())
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    is_same = (record["commit"], record["hardware"]) == (commit(), hardware())
    return record.get("rounds", {}) if is_same else {}


def _path(name: str, day: str) -> Path:
    return RESULTS / f"{name}_{_hardware_slug()}_{day}.json"


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has; more can be added."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help="rounds behind each median")
    options.add_argument(
        "--save", action="store_true", help="also write benchmarks/results/NAME_HARDWARE_DATE.json"
    )
    return options


def hardware() -> str:
    """Processor, cores, memory, and the GPU where there is one."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [_processor(), f"{_n_cores()} cores", f"{memory_gb:.0f} GB", *_gpus()]
    return ", ".join(parts)


def commit() -> str:
    """The commit of this tree, with + when files other than results differ from it; "unknown" outside a checkout."""
    try:
        revision = _git("rev-parse", "--short", "HEAD")
        return revision + (
            "+" if _git("status", "--porcelain", "--untracked-files=no", "--", ":/", RESULTS_ASIDE) else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _serve(prepare: Prepare, pipe: Connection) -> None:
    """A side's process: measures once for every word that comes."""
    measure = prepare()
    pipe.send({})
    while True:
        try:
            pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(dict(measure()))


def _receive(pipe: Connection, side: str) -> dict[str, float]:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"the process of side {side!r} ended early") from None


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    except (OSError, subprocess.CalledProcessError):
        return []


def _hardware_slug() -> str:
    """Short enough for a file name: the GPU's name, or the number of cores and the processor's family."""
    names = [re.sub(r"[^a-z0-9]+", "", gpu.lower().replace("nvidia", "")) for gpu in _gpus()]
    if names:
        return f"{len(names)}x{names[0]}"
    family = re.search(r"epyc|xeon|ryzen|core|apple", _processor().lower())
    return f"{_n_cores()}x{family.group() if family else platform.machine()}"
