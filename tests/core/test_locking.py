"""One writer a folder, named to the second; a dead writer never keeps the lock."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from puna.core.errors import RunLockedError, StorageError
from puna.core.locking import run_lock

FORK = multiprocessing.get_context("fork")
HANG_SECONDS = 300
"""After which a test fails rather than hang."""


def hold(out: Path, is_held: object, seconds: float) -> None:
    with run_lock(out):
        is_held.set()  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_second_process_is_told_the_first_ones_number(tmp_path: Path) -> None:
    is_held = FORK.Event()
    holder = FORK.Process(target=hold, args=(tmp_path, is_held, 60))
    holder.start()
    assert is_held.wait(HANG_SECONDS)
    with pytest.raises(RunLockedError, match=f"process {holder.pid} writing it"), run_lock(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(RunLockedError, match=str(os.getpid())), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


def die_before_the_worker(out: Path, pipe: object) -> None:
    with run_lock(out):
        has_started = FORK.Event()
        worker = FORK.Process(target=lambda: (has_started.set(), time.sleep(60)))
        worker.start()
        has_started.wait(HANG_SECONDS)
        pipe.send(worker.pid)  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_surviving_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A killed run leaves forked workers behind; the next run must not wait for them."""
    here, there = FORK.Pipe()
    run = FORK.Process(target=die_before_the_worker, args=(tmp_path, there))
    run.start()
    worker_pid = here.recv()
    run.join()
    try:
        os.kill(worker_pid, 0)
        with run_lock(tmp_path):
            pass
    finally:
        os.kill(worker_pid, signal.SIGKILL)


def test_lock_released_when_the_body_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), run_lock(tmp_path):
        raise ValueError("boom")
    with run_lock(tmp_path):
        pass


def test_deleted_lock_file_does_not_let_two_in(tmp_path: Path) -> None:
    """The folder of a finished build disappears with its lock: the next holder starts from a new file."""
    with run_lock(tmp_path / "a"):
        (tmp_path / "a" / ".lock").unlink()
        with run_lock(tmp_path / "a"), pytest.raises(RunLockedError), run_lock(tmp_path / "a"):
            pass


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a folder that can be written"), run_lock(tmp_path / "file"):
        pass
    with pytest.raises(StorageError, match="a folder that can be written"), run_lock(tmp_path / "file" / "x"):
        pass
