"""Threads, memory and devices are reported as they are, and a wrong device is refused at the door."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.core.devices import available_cpus, hardware, peak_rss_bytes, pick_device, set_threads
from puna.core.errors import ConfigError


@pytest.fixture(autouse=True)
def _threads_restored() -> None:
    yield
    torch.set_num_threads(1)


def test_threads_follow_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set_threads(2) == torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set_threads() == torch.get_num_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert set_threads() == available_cpus()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_peak_memory_grows_by_what_is_touched() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    before = peak_rss_bytes()
    touched = np.ones(before - now + 50_000_000, dtype=np.uint8)
    assert before + 30_000_000 < peak_rss_bytes() < before + 90_000_000
    del touched


def test_auto_picks_what_is_there() -> None:
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", ""])
def test_wrong_device_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="device: expected auto"):
        pick_device(name)


def test_hardware_is_plain_json() -> None:
    seen = hardware()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["cpus"] >= 1
    assert seen["memory_bytes"] > 2**28
