"""Run in a process of its own: the setting is for life."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from puna.core.allocator import keep_freed_memory
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1] == "keep": assert keep_freed_memory()
def fill(): return [b"x" * (20 * 2**20) for _ in range(5)]
for _ in range(3): fill()
before = faults()
for _ in range(5): fill()
print(faults() - before)
"""


def n_faults(mode: str) -> int:
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_memory_asked_for_again_causes_no_page_faults() -> None:
    assert n_faults("keep") < 100 < n_faults("leave")
