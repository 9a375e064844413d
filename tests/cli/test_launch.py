"""What is set before torch is loaded, and that nothing is loaded before."""

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from puna.cli import launch


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A process environment without the variables in question, and a command line that does nothing."""
    fake: dict[str, str] = {}
    monkeypatch.setattr(launch, "os", SimpleNamespace(environ=fake))
    program = SimpleNamespace(main=lambda: 7)
    monkeypatch.setattr(launch, "importlib", SimpleNamespace(import_module=lambda name: program))
    return fake


def test_threads_spin_briefly(environment: dict[str, str]) -> None:
    assert launch.main() == 7
    assert environment["GOMP_SPINCOUNT"] == launch.SPIN_COUNT


def test_what_the_user_set_stays(environment: dict[str, str]) -> None:
    environment |= {"GOMP_SPINCOUNT": "3", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "9"}
    launch.main()
    assert environment == {"GOMP_SPINCOUNT": "3", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "9"}


def test_a_wait_policy_of_the_user_decides_alone(environment: dict[str, str]) -> None:
    environment["OMP_WAIT_POLICY"] = "passive"
    launch.main()
    assert "GOMP_SPINCOUNT" not in environment


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_means_afterwards_what_it_meant_before(environment: dict[str, str], handler: Any) -> None:
    """A run in the background of a shell ignores it, and goes on doing so."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        launch.main()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_torch_is_not_loaded_before_the_environment_is_set() -> None:
    program = "import sys, puna.cli.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
