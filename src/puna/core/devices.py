"""Threads, memory and accelerators of this machine."""

import math
import os
import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from puna.core.errors import ConfigError

__all__ = [
    "add_peak_rss",
    "available_cpus",
    "available_memory_bytes",
    "hardware",
    "peak_rss_bytes",
    "pick_device",
    "rss_bytes",
    "set_threads",
]


def available_cpus() -> int:
    """Cores this process may use: its affinity, and the quota of its control group where there is one."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            n_cpus = min(n_cpus, max(1, math.ceil(int(quota) / int(period))))
    return n_cpus


def set_threads(n_threads: int | None = None) -> int:
    """Set torch's threads inside one operation and return how many.

    Sums depend on the thread count in their last bits, so runs are compared bit for bit at one count only.

    Args:
        n_threads: None takes OMP_NUM_THREADS, or all available cores where that is unset.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if n_threads is None:
        n_threads = int(asked) if asked.isdecimal() and int(asked) > 0 else available_cpus()
    torch.set_num_threads(n_threads)
    return n_threads


_with_workers = 0


def peak_rss_bytes() -> int:
    """The most memory this process has held so far (ru_maxrss), with the workers that ran beside it."""
    return max(_own_peak(), _with_workers)


def add_peak_rss(workers_bytes: int) -> None:
    """Count workers that ran at the same time and are gone, by the sum of their peaks and what is held here now."""
    global _with_workers
    _with_workers = max(_with_workers, rss_bytes() + workers_bytes)


def _own_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Memory this process holds now; where the system does not tell, the most it has held."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return _own_peak()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_memory_bytes(device: torch.device) -> int:
    """Memory that a new allocation on the device could take now; on Linux, caches the system would drop counted."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the name, or this machine lacks the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = "auto, cpu, cuda or cuda:N"
    device: torch.device | None = None
    with suppress(RuntimeError):
        device = torch.device(name)
    if device is None or str(device) != name:  # torch takes cuda:256 for cuda:0
        raise ConfigError(where="device", expected=expected, got=repr(name), fix="Use auto.")
    n_gpus = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= n_gpus):
        raise ConfigError(
            where="device",
            expected=f"{expected}, present on this machine ({n_gpus} CUDA devices)",
            got=repr(name),
            fix="Use auto, or install a torch build for this accelerator.",
        )
    return device


def _cpu_model() -> str:
    """The processor's marketing name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """What the numbers of a run were measured on, as plain JSON values."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
