"""torchrun as users call it, two processes of one thread on a free port."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
TESTS = Path(__file__).parents[2]


def torchrun(
    *command: object, n: int = 2, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `python -m torch.distributed.run` on a script or, with "-m", a module, in a session of its own."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    return subprocess.Popen(
        [*launcher, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{SOURCE}{os.pathsep}{TESTS}",
            **(environment or {}),
        },
        start_new_session=True,
    )
