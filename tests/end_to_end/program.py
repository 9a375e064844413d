"""`puna` as its users start it, a process of its own on one thread; and the bytes of what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.core.fingerprint import hash_file
from puna.core.manifest import content_hashes, read_manifest

TINY = Path(__file__).parent / "tiny.toml"
"""The whole recipe in seconds."""


@dataclass(frozen=True)
class Ended:
    """What a finished command said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object that ends standard output."""
        return json.loads(self.stdout.splitlines()[-1])

    def complaint(self) -> str:
        """The one message of a command that failed by the user's mistake."""
        assert self.exit_code == 2, self.stderr
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        messages = [line for line in self.stderr.splitlines() if line.startswith("puna: ")]
        assert len(messages) == 1, self.stderr
        assert self.stderr.splitlines()[-1] == messages[0]
        return messages[0]


@dataclass(frozen=True)
class Run:
    """A run that nothing disturbed; tests that write take a copy."""

    folder: Path
    ended: Ended


def start(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin a command in a session of its own; a variable set to "" is unset."""
    merged = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "puna", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in merged.items() if value != ""},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, stdin: str = "", timeout_seconds: float = 900) -> Ended:
    """Wait for a command; one that hangs is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout_seconds)
    finally:
        kill(process)
    return Ended(process.returncode, stdout, stderr)


def puna(*arguments: object, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    return finish(start(*arguments, environment=environment), stdin=stdin)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, as a machine that runs out of memory does it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str, *, seconds: float = 300) -> bool:
    """Watch until a path matches in the folder; False when the process ended first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if next(folder.glob(pattern), None) is not None:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    raise TimeoutError(f"no {pattern} in {folder} after {seconds} s")


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by relative path, save the lock files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}


def artifacts(run: Path) -> list[Path]:
    """Every finished artifact of a run, in the order in which they were finished."""
    found = (path for path in run.rglob("manifest.json") if ".partial/" not in path.as_posix())
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def results(run: Path) -> dict[str, dict[str, str]]:
    """sha256 of what each artifact holds apart from its logs, by the artifact's name; reports tell times."""
    return {
        artifact.relative_to(run).as_posix(): content_hashes(manifest)
        for artifact in artifacts(run)
        if (manifest := read_manifest(artifact)).kind != "report"
    }


def copy_until(run: Path, copy: Path, artifact: str) -> Path:
    """A copy of a finished run as it was just before an artifact was begun."""
    shutil.copytree(run, copy)
    done = [path.relative_to(copy).as_posix() for path in artifacts(copy)]
    for name in done[done.index(artifact) :]:
        shutil.rmtree(copy / name)
    return copy


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Whatever is in the folder now is there afterwards, byte for byte."""
    before = contents(folder)
    assert before
    yield
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
