"""The folder a run writes: foreign files, a second run, Ctrl-C and a full disk. What existed stays, byte for byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from end_to_end.program import (
    TINY,
    Ended,
    Run,
    contents,
    copy_until,
    finish,
    results,
    start,
    untouched,
    wait_for,
)

Call = Callable[..., Ended]


def test_an_output_path_that_is_a_file_is_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("mine")
    with untouched(tmp_path):
        assert str(file) in call("run", TINY, "--out", file).complaint()
        assert str(file) in call("run", TINY, "--out", file / "below").complaint()


@pytest.mark.parametrize("name", ["sandbox/notes.txt", "data"])
def test_foreign_files_in_a_stage_folder_are_kept(
    finished: Run, call: Call, tmp_path: Path, name: str
) -> None:
    foreign = copy_until(finished.folder, tmp_path / "run", name.split("/")[0]) / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine")
    with untouched(tmp_path):
        message = call("run", TINY, "--out", tmp_path / "run").complaint()
    assert str(tmp_path / "run" / name.split("/")[0]) in message
    assert "nothing here was changed" in message


def test_foreign_files_beside_the_stages_are_kept(call: Call, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "photos").mkdir()
    (copy / "photos" / "llama.jpg").write_text("mine")
    with untouched(copy):
        assert call("run", TINY, "--out", copy, "--until", "tokenizer").exit_code == 0


def test_a_second_run_on_the_same_folder_is_refused(finished: Run, call: Call, tmp_path: Path) -> None:
    copy = copy_until(finished.folder, tmp_path / "run", "pretrained")
    before = contents(copy)
    first = start("run", TINY, "--out", copy, "--until", "pretraining")
    assert wait_for(first, copy, ".pretrained.partial/state/step-10")
    message = call("run", TINY, "--out", copy, "--until", "pretraining").complaint()
    assert str(first.pid) in message
    assert str(copy) in message
    assert finish(first).exit_code == 0
    ours, theirs = results(copy), results(finished.folder)
    assert ours == {name: theirs[name] for name in ours}
    assert before.items() <= contents(copy).items()


def test_ctrl_c_saves_exits_130_and_the_run_resumes(finished: Run, tmp_path: Path, call: Call) -> None:
    copy = copy_until(finished.folder, tmp_path / "run", "pretrained")
    process = start("run", TINY, "--out", copy, "--until", "pretraining")
    assert wait_for(
        process, copy, ".pretrained.partial/state/*step-10*"
    )  # begun: it is written beside the training
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.exit_code == 130
    assert "Traceback" not in ended.stderr
    assert "the training state is saved. Run the same command again to resume." in ended.stderr
    again = call("run", TINY, "--out", copy, "--until", "pretraining")
    assert again.exit_code == 0, again.stderr
    assert "continuing the interrupted build" in again.stderr
    ours, theirs = results(copy), results(finished.folder)
    assert ours == {name: theirs[name] for name in ours}


INTERRUPTED_LOADING = """
import os, runpy, signal, sys

moment = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            print("interrupted at", name, flush=True)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
runpy.run_module("puna", run_name="__main__", alter_sys=True)
"""
"""`python -m puna` that gets Ctrl-C as the import of the module named first begins."""


@pytest.mark.parametrize("moment", ["puna.cli.main", "typer", "torch", "puna.recipe.figure4"])
def test_ctrl_c_while_loading_is_quiet(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_LOADING, moment, "run", TINY, "--out", tmp_path / "run"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ended.stdout == f"interrupted at {moment}\n"
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


@contextmanager
def disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """A file system of this size; skips where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tiny disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("n_free_bytes", [0, 2**12, 2**16])
def test_a_full_disk_is_named_and_freeing_space_goes_on(
    finished: Run, call: Call, tmp_path: Path, n_free_bytes: int
) -> None:
    """Room for everything before pretraining, and too little for its training states or its weights."""
    source = copy_until(finished.folder, tmp_path / "source", "pretrained")
    with disk(tmp_path / "disk", 2**26) as folder:
        run = Path(shutil.copytree(source, folder / "run"))
        before = contents(run)
        (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - n_free_bytes))
        message = call("run", TINY, "--out", run, "--until", "pretraining").complaint()
        assert "Free disk space" in message
        assert str(run) in message
        assert before.items() <= contents(run).items()
        assert not (run / "pretrained").exists()
        (folder / "ballast").unlink()
        again = call("run", TINY, "--out", run, "--until", "pretraining")
        assert again.exit_code == 0, again.stderr
        ours, theirs = results(run), results(finished.folder)
        assert ours == {name: theirs[name] for name in ours}


def test_a_disk_with_room_for_the_model_only_gets_the_model(
    finished: Run, call: Call, tmp_path: Path
) -> None:
    """Too little for a training state: training goes on all the same, and says what it could not write."""
    source = copy_until(finished.folder, tmp_path / "source", "pretrained")
    with disk(tmp_path / "disk", 2**26) as folder:
        run = Path(shutil.copytree(source, folder / "run"))
        (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - 2**20))
        ended = call("run", TINY, "--out", run, "--until", "pretraining")
        assert ended.exit_code == 0, ended.stderr
        assert "WARNING: the training state of update 10 could not be written" in ended.stderr
        ours, theirs = results(run), results(finished.folder)
        assert ours == {name: theirs[name] for name in ours}


def test_a_disk_that_is_full_from_the_start(call: Call, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 2**16) as folder:
        (folder / "mine.json").write_text(json.dumps({"kept": True}))
        with untouched(folder):
            message = call("run", TINY, "--out", folder / "run").complaint()
    assert "Free disk space" in message


def test_a_file_size_limit_is_a_full_disk(finished: Run, tmp_path: Path) -> None:
    """A quota, where no disk can be mounted."""
    copy = copy_until(finished.folder, tmp_path / "run", "pretrained")
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", sys.executable, "-m", "puna"]
    with untouched(copy):
        ended = subprocess.run([*limited, "run", TINY, "--out", copy], capture_output=True, text=True)
        message = Ended(ended.returncode, ended.stdout, ended.stderr).complaint()
    assert "Free disk space" in message
