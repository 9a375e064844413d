"""Runs before any test: one thread, no display, fixed examples, and shape checks on the whole package."""

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
from hypothesis import is_hypothesis_test, settings
from hypothesis.internal.conjecture import providers
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
settings.register_profile("fuzz", deadline=None, derandomize=False, max_examples=200, print_blob=True)
settings.load_profile("puna")
providers.is_local_module_file = lambda path: False
"""Hypothesis mixes constants of the imported modules into its examples: they would depend on what was imported before,
so on the other tests of a process. It has no setting for this."""


def pytest_configure(config: pytest.Config) -> None:
    """`-m fuzz` draws with random seeds; before the test modules are imported, whose decorators read the profile."""
    if "fuzz" in config.getoption("markexpr"):
        settings.load_profile("fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what hypothesis draws; skip, with the reason, what this machine or command line does not offer."""
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.fuzz)
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
