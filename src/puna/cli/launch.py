"""The `puna` program: sets what must be set before torch is loaded, then hands over to the command line."""

import importlib
import os
import signal
from types import FrameType

__all__ = ["main"]

SPIN_COUNT = "10000"
"""How long an OpenMP thread waits awake. The default keeps two threads of two processes waiting for each other:
measured on two cores, a training step goes from 0.05 s to 5 s beside another process; with this it takes 0.12 s."""


KERNEL_CACHE = "256"
"""Compiled matrix kernels that oneDNN keeps; its default of 1,024 holds gigabytes when sizes vary."""


def main() -> int:
    """Run the command line of this process."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNEL_CACHE)
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    command_line = importlib.import_module("puna.cli.main")
    signal.signal(signal.SIGINT, handler)
    return int(command_line.main())


def _leave(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while libraries load: nothing is open yet, and a library cut off in its import fails in odd ways."""
    os.write(2, b"puna: stopped while loading.\n")
    os._exit(130)
