"""Runs before any test: one thread, no display, seeded hypothesis, and shape checks on the whole package."""

import os
import signal
import sys
import threading
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))
install_import_hook("puna", "typechecks.typecheck")
torch.set_num_threads(1)
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):
    # A shell starts its background jobs deaf to Ctrl-C, and so would be what the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("puna", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("puna")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine or this command line does not offer."""
    wants_slow = "slow" in config.getoption("markexpr")
    missing = {
        "slow": None if wants_slow else "takes minutes: run with -m slow",
        "gpu": None if torch.cuda.is_available() else "needs a CUDA device",
        "real": None if os.environ.get("PUNA_DATA") else "PUNA_DATA names no folder of real data",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
