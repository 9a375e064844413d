"""An artifact exists whole or not at all, whatever happens to the process that makes it."""

import errno
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from puna import __version__
from puna.core import artifacts
from puna.core import manifest as manifest_module
from puna.core.artifacts import (
    StageContext,
    code_version,
    read_manifest,
    run_lock,
    run_stage,
    verify,
)
from puna.core.config import Settings
from puna.core.errors import CheckpointError, ConfigError, DataError, RunLockedError, StorageError
from puna.core.lineage import lineage
from puna.core.machine import Machine
from puna.core.manifest import Manifest
from puna.core.progress import Reporter, quiet

FORK = multiprocessing.get_context("fork")
HANG_SECONDS = 300
"""After which a test fails rather than hang."""


class Config(Settings):
    n_parts: int = 3


class Stage:
    """Writes parts one by one, remembering in its state how far it came."""

    def __init__(self) -> None:
        self.n_built = 0
        self.resumed_at: list[int] = []

    def build(self, n_parts: int, context: StageContext) -> Mapping[str, Any]:
        self.n_built += 1
        progress = context.state / "done"
        n_done = int(progress.read_text()) if progress.exists() else 0
        self.resumed_at.append(n_done)
        for part in range(n_done, n_parts):
            (context.folder / "parts").mkdir(exist_ok=True)
            (context.folder / "parts" / f"{part}.txt").write_text(f"part {part} of seed {context.seed}")
            (context.state / "next").write_text(str(part + 1))
            (context.state / "next").replace(progress)
        return {"n_parts": n_parts, "share": 0.5}

    def run(self, out: Path, config: Config | None = None, **changes: Any) -> Manifest:
        config = config or Config()
        arguments = {"kind": "parts", "inputs": {}, "seed": 7, **changes}
        arguments.setdefault("build", lambda context: self.build(config.n_parts, context))
        return run_stage(out, config=config, **arguments)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_artifact_is_complete_and_alone(tmp_path: Path, stage: Stage) -> None:
    manifest = stage.run(tmp_path / "run" / "a", labels={"version": "sft"})
    assert manifest == read_manifest(tmp_path / "run" / "a") == verify(tmp_path / "run" / "a")
    assert manifest.config == {"n_parts": 3}
    assert manifest.labels == {"version": "sft"}
    assert manifest.metrics == {"n_parts": 3, "share": 0.5}
    assert manifest.seed == 7
    assert list(manifest.files) == ["parts/0.txt", "parts/1.txt", "parts/2.txt"]
    assert manifest.peak_rss_bytes > 2**20
    assert manifest.code_version.startswith("0.")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]


def test_unchanged_stage_is_skipped(tmp_path: Path, stage: Stage) -> None:
    first = stage.run(tmp_path / "a")
    assert stage.run(tmp_path / "a") == first
    assert stage.n_built == 1


def test_skipping_works_on_a_read_only_folder(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    stage.run(tmp_path / "a")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("changes", [{"seed": 8}, {"labels": {"layout": "x"}}, {"config": Config(n_parts=2)}])
def test_any_change_rebuilds_and_leaves_nothing_of_the_old(
    tmp_path: Path, stage: Stage, changes: dict[str, Any]
) -> None:
    old = stage.run(tmp_path / "a")
    new = stage.run(tmp_path / "a", **changes)
    assert new.fingerprint != old.fingerprint
    assert content(tmp_path / "a").keys() == new.files.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_changed_input_rebuilds_and_renamed_input_does_not(tmp_path: Path, stage: Stage) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("one")
    stage.run(tmp_path / "a", inputs={"data": raw})
    raw.rename(tmp_path / "moved.txt")
    stage.run(tmp_path / "a", inputs={"data": tmp_path / "moved.txt"})
    assert stage.n_built == 1
    (tmp_path / "moved.txt").write_text("two")
    stage.run(tmp_path / "a", inputs={"data": tmp_path / "moved.txt"})
    assert stage.n_built == 2


@pytest.mark.parametrize("changed", ["first", "second", "many.0", "many.1"])
def test_a_change_of_any_input_rebuilds(tmp_path: Path, stage: Stage, changed: str) -> None:
    paths = {name: tmp_path / name for name in ("first", "second", "many.0", "many.1")}
    for name, path in paths.items():
        path.write_text(name)
    many = [paths["many.0"], paths["many.1"]]
    inputs = {"first": paths["first"], "second": paths["second"], "many": many}
    stage.run(tmp_path / "a", inputs=inputs)
    paths[changed].write_text("something else")
    stage.run(tmp_path / "a", inputs=inputs)
    assert stage.n_built == 2


def test_an_input_artifact_counts_by_its_content(tmp_path: Path, stage: Stage) -> None:
    """The same request built by other code has the same fingerprint and other files."""
    made, followed = [], []
    for text in ("old", "new"):

        def write(context: StageContext, text: str = text) -> Mapping[str, Any]:
            (context.folder / "model").write_text(text)
            return {}

        made.append(stage.run(tmp_path / text, build=write))
        followed.append(stage.run(tmp_path / f"after-{text}", inputs={"model": tmp_path / text}))
    assert made[0].fingerprint == made[1].fingerprint
    assert followed[0].fingerprint != followed[1].fingerprint


def test_sequences_of_inputs_are_numbered(tmp_path: Path, stage: Stage) -> None:
    for name in "xy":
        (tmp_path / name).write_text(name)
    manifest = stage.run(tmp_path / "a", inputs={"data": [tmp_path / "x", tmp_path / "y"]})
    assert list(manifest.inputs) == ["data.0", "data.1"]
    assert manifest.inputs["data.1"].path == str(tmp_path / "y")


def test_damaged_artifact_is_rebuilt_by_its_stage(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    whole = content(tmp_path / "a")
    os.truncate(tmp_path / "a" / "parts" / "1.txt", 3)
    stage.run(tmp_path / "a")
    (tmp_path / "a" / "parts" / "2.txt").unlink()
    stage.run(tmp_path / "a")
    assert stage.n_built == 3
    assert content(tmp_path / "a") == whole


def test_damaged_input_artifact_is_refused(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    os.truncate(tmp_path / "a" / "parts" / "1.txt", 3)
    with pytest.raises(CheckpointError, match=r"1\.txt"):
        stage.run(tmp_path / "b", inputs={"model": tmp_path / "a"})


def test_failed_build_keeps_the_old_artifact_and_resumes(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    old = content(tmp_path / "a")

    def fail_midway(context: StageContext) -> Mapping[str, Any]:
        stage.build(2, context)
        context.metrics.write(2, "train", loss=1.0)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        stage.run(tmp_path / "a", Config(n_parts=4), build=fail_midway)
    assert content(tmp_path / "a") == old
    stage.run(tmp_path / "a", Config(n_parts=4))
    assert stage.resumed_at[-1] == 2
    assert len([name for name in content(tmp_path / "a") if name.startswith("parts/")]) == 4


def test_leftovers_of_other_settings_are_wiped(tmp_path: Path, stage: Stage) -> None:
    def fail(context: StageContext) -> Mapping[str, Any]:
        stage.build(5, context)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        stage.run(tmp_path / "a", Config(n_parts=6), build=fail)
    manifest = stage.run(tmp_path / "a", Config(n_parts=1))
    assert stage.resumed_at[-1] == 0
    assert list(manifest.files) == ["parts/0.txt"]


@pytest.mark.parametrize("changed", ["nothing", "code", "torch"])
def test_leftovers_of_other_code_are_wiped(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    def fail(context: StageContext) -> Mapping[str, Any]:
        stage.build(2, context)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        stage.run(tmp_path / "a", build=fail)
    if changed == "code":
        monkeypatch.setattr(artifacts, "code_version", lambda: "0.0.0+another")
    if changed == "torch":
        monkeypatch.setattr(torch, "__version__", "0.0.0")
    stage.run(tmp_path / "a")
    assert stage.resumed_at == [0, 2 if changed == "nothing" else 0]


@pytest.mark.parametrize("has_old", [False, True])
def test_killed_at_any_file_operation_nothing_is_lost(tmp_path: Path, has_old: bool) -> None:
    """SIGKILL at the first, second, third ... operation on a path, until the stage gets through."""
    reference = Stage().run(tmp_path / "reference")
    for n in itertools.count(1):
        out = tmp_path / f"kill{n}" / "a"
        if has_old:
            Stage().run(out, Config(n_parts=1))
        child = FORK.Process(target=_run_until_killed, args=(out, n))
        child.start()
        child.join()
        if has_old:
            survivor = out if out.exists() else out.with_name(".a.old")
            assert verify(survivor).config["n_parts"] in (1, 3)
        elif out.exists():
            verify(out)
        manifest = Stage().run(out)
        assert manifest.files == reference.files
        verify(out)
        assert [path.name for path in out.parent.iterdir()] == ["a"]
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert n > 20


def _run_until_killed(out: Path, n_operations: int) -> None:
    n_left = n_operations
    folder = str(out.parent)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_left
        is_file_event = event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if is_file_event and str(arguments[0]).startswith(
            (folder, "manifest", "request", "artifact", "state")
        ):
            n_left -= 1
            if n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    Stage().run(out)


def _run_with_small_files(out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        Stage().run(out, Config(n_parts=9), build=_write_much)
    except StorageError:
        os._exit(42)


def _write_much(context: StageContext) -> Mapping[str, Any]:
    (context.folder / "big").write_bytes(bytes(10_000))
    return {}


def test_a_file_the_system_refuses_is_a_storage_error(tmp_path: Path, stage: Stage) -> None:
    old = stage.run(tmp_path / "a")
    child = FORK.Process(target=_run_with_small_files, args=(tmp_path / "a",))
    child.start()
    child.join()
    assert child.exitcode == 42
    assert verify(tmp_path / "a") == old


def test_full_disk_keeps_the_old_artifact_and_resumes(tmp_path: Path, stage: Stage) -> None:
    old = stage.run(tmp_path / "a")

    def fill_the_disk(context: StageContext) -> Mapping[str, Any]:
        stage.build(2, context)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="Free disk space and run the same command again"):
        stage.run(tmp_path / "a", Config(n_parts=4), build=fill_the_disk)
    assert verify(tmp_path / "a") == old
    stage.run(tmp_path / "a", Config(n_parts=4))
    assert stage.resumed_at[-1] == 2


def _stay_in_build(out: Path, is_building: Any) -> None:
    def wait(context: StageContext) -> Mapping[str, Any]:
        is_building.set()
        signal.pause()
        return {}

    Stage().run(out, build=wait)


def test_second_process_on_the_same_folder_is_refused(tmp_path: Path, stage: Stage) -> None:
    is_building = FORK.Event()
    first = FORK.Process(target=_stay_in_build, args=(tmp_path / "a", is_building))
    first.start()
    assert is_building.wait(HANG_SECONDS)
    with pytest.raises(RunLockedError, match=str(first.pid)):
        stage.run(tmp_path / "a")
    first.kill()
    first.join()
    stage.run(tmp_path / "a")


def test_stages_run_inside_a_locked_run_folder(tmp_path: Path, stage: Stage) -> None:
    """The recipe holds the lock of the whole run: a stage takes its own beside it, and gives only that back."""

    def build(context: StageContext) -> Mapping[str, Any]:
        assert not _can_enter(tmp_path)
        return stage.build(3, context)

    with run_lock(tmp_path):
        stage.run(tmp_path / "a", build=build)
        assert not _can_enter(tmp_path), "the run is still locked after its first stage"
        stage.run(tmp_path / "b", build=build)
        assert not _can_enter(tmp_path)
    assert _can_enter(tmp_path)
    assert stage.n_built == 2
    for name in ("a", "b"):
        assert len(verify(tmp_path / name).files) == 3
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "a", "b"}


def _can_enter(run: Path) -> bool:
    """Whether another process gets the lock of the run."""
    other = FORK.Process(target=_enter, args=(run,))
    other.start()
    other.join(HANG_SECONDS)
    assert other.exitcode in (0, 3)
    return other.exitcode == 0


def _enter(run: Path) -> None:
    try:
        with run_lock(run):
            os._exit(0)
    except RunLockedError:
        os._exit(3)


@pytest.mark.parametrize(
    "make", [lambda p: p.write_text("x"), lambda p: (p.mkdir(), (p / "thesis.tex").touch())]
)
def test_what_is_no_artifact_is_never_replaced(
    tmp_path: Path, stage: Stage, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / "home")
    before = content(tmp_path)
    with pytest.raises(DataError, match="Choose another output folder"):
        stage.run(tmp_path / "home")
    assert stage.n_built == 0
    assert before.items() <= content(tmp_path).items()


def test_empty_folder_is_filled(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "a").mkdir()
    manifest = stage.run(tmp_path / "a")
    verify(tmp_path / "a")
    assert stage.n_built == 1
    assert read_manifest(tmp_path / "a") == manifest


def test_truncated_manifest_is_an_error_not_a_rebuild(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    os.truncate(tmp_path / "a" / "manifest.json", 50)
    with pytest.raises(CheckpointError, match="a whole manifest"):
        stage.run(tmp_path / "a")
    assert stage.n_built == 1


def test_missing_input_is_named(tmp_path: Path, stage: Stage) -> None:
    with pytest.raises(DataError, match="absent"):
        stage.run(tmp_path / "a", inputs={"data": tmp_path / "absent"})
    assert list(tmp_path.iterdir()) == []


def test_output_cannot_be_its_own_input(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    with pytest.raises(ConfigError, match="other than the input data"):
        stage.run(tmp_path / "a", inputs={"data": tmp_path / "a"})


def test_metrics_are_in_the_artifact_and_not_in_what_follows_from_it(tmp_path: Path, stage: Stage) -> None:
    """Logs hold speeds: two runs of the same recipe differ there and must still agree on what comes after."""
    fingerprints = []
    for name, speed in (("1", 10.0), ("2", 11.0)):

        def log_speed(context: StageContext, speed: float = speed) -> Mapping[str, Any]:
            context.metrics.write(1, "train", tokens_per_second=speed)
            return stage.build(3, context)

        first = stage.run(tmp_path / name / "a", build=log_speed)
        assert "metrics.jsonl" in first.files
        second = stage.run(tmp_path / name / "b", inputs={"model": tmp_path / name / "a"})
        fingerprints.append(second.fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_state_is_gone_after_publication(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a")
    assert not any("done" in path.name for path in tmp_path.rglob("*"))


def test_keyboard_interrupt_passes_and_resumes(tmp_path: Path, stage: Stage) -> None:
    def interrupt(context: StageContext) -> Mapping[str, Any]:
        stage.build(2, context)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(tmp_path / "a", build=interrupt, reporter=quiet())
    stage.run(tmp_path / "a")
    assert stage.resumed_at == [0, 2]


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("{checkout}\nabc1234\n", f"{__version__}+abc1234"),
        ("/somewhere/else\nabc1234\n", __version__),
        (None, __version__),
    ],
)
def test_code_version_names_the_commit_of_our_own_checkout_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str | None, version: str
) -> None:
    """Installed into an environment that lies in another project's checkout, that commit says nothing."""

    def git(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if answer is None:
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess(command, 0, stdout=answer.format(checkout=tmp_path))

    monkeypatch.setattr(artifacts.subprocess, "run", git)
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "src" / "puna" / "core" / "artifacts.py"))
    assert code_version.__wrapped__() == version


def make_schema_1(folder: Path) -> None:
    """Turn an artifact's manifest into one of the version before."""
    values = json.loads((folder / "manifest.json").read_text())
    values["schema_version"] = 1
    values["config"]["n_threads"] = 2
    (folder / "manifest.json").write_text(json.dumps(values, indent=2))


@pytest.mark.parametrize("config", [Config(), Config(n_parts=1)])
def test_an_artifact_of_the_version_before_is_not_replaced(
    tmp_path: Path, stage: Stage, config: Config
) -> None:
    stage.run(tmp_path / "a")
    make_schema_1(tmp_path / "a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        stage.run(tmp_path / "a", config)
    assert caught.value.where == str(tmp_path / "a")
    assert "an artifact of this version of puna (manifest schema 2)" in caught.value.expected
    assert "an earlier version (schema 1)" in caught.value.got
    assert "another output folder" in caught.value.fix
    assert caught.value.exit_code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "not even a lock is left"
    assert stage.n_built == 1


def test_an_artifact_of_the_version_before_can_be_read_and_built_on(tmp_path: Path, stage: Stage) -> None:
    stage.run(tmp_path / "a", labels={"version": "sft"})
    make_schema_1(tmp_path / "a")
    old = read_manifest(tmp_path / "a")
    assert (old.schema_version, old.labels, old.config["n_threads"]) == (1, {"version": "sft"}, 2)
    assert verify(tmp_path / "a") == old
    made = stage.run(tmp_path / "b", inputs={"model": tmp_path / "a"})
    assert made.schema_version == 2
    tree = lineage(tmp_path / "b")
    assert [(node.name, node.path) for node in tree.inputs] == [("model", tmp_path / "a")]
    assert tree.inputs[0].summary.startswith("parts version=sft")


def test_what_was_left_of_a_build_by_the_version_before_is_not_continued(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(context: StageContext) -> Mapping[str, Any]:
        stage.build(2, context)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest_module, "SCHEMA_VERSION", 1)
    with pytest.raises(KeyboardInterrupt):
        stage.run(tmp_path / "a", build=interrupt)
    monkeypatch.undo()
    stage.run(tmp_path / "a")
    assert stage.resumed_at == [0, 0]


def test_choices_are_recorded_with_the_settings(tmp_path: Path, stage: Stage) -> None:
    plain = stage.run(tmp_path / "a")
    chosen = stage.run(tmp_path / "a", choices={"aim": "x"})
    assert chosen.config == {"n_parts": 3, "aim": "x"}
    assert chosen.fingerprint != plain.fingerprint
    assert stage.run(tmp_path / "a", choices={"aim": "y"}).fingerprint != chosen.fingerprint
    assert stage.run(tmp_path / "a", choices={}).fingerprint == plain.fingerprint


def test_the_machine_reaches_the_build_and_is_no_reason_to_build_again(tmp_path: Path, stage: Stage) -> None:
    devices = []

    def build(context: StageContext) -> Mapping[str, Any]:
        devices.append(context.device)
        assert context.machine.torch_device == context.device
        return stage.build(3, context)

    first = stage.run(tmp_path / "a", build=build, machine=Machine(device="cpu:0"))
    assert devices == [torch.device("cpu", 0)]
    assert stage.run(tmp_path / "a", build=build, machine=Machine(threads=1)) == first
    assert stage.n_built == 1
    assert "cpu:0" not in json.dumps(first.config)


def make_model(out: Path, data: Path, *, text: str = "a", labels: Mapping[str, str] | None = None) -> None:
    """An artifact of kind model from a file, with settings that a second call can change."""

    class Text(Settings):
        text: str

    def build(context: StageContext) -> Mapping[str, Any]:
        (context.folder / "weights").write_text(text)
        return {}

    run_stage(
        out,
        kind="model",
        config=Text(text=text),
        inputs={"data": data},
        seed=0,
        build=build,
        labels=labels or {"version": "sft"},
    )


def weights(folder: Path) -> str:
    return (folder / "weights").read_text()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data.txt").write_text("text")
    return tmp_path / "data.txt"


def test_a_stage_replaces_what_it_made_here_itself(tmp_path: Path, data: Path) -> None:
    make_model(tmp_path / "run" / "sft", data, text="a")
    make_model(tmp_path / "run" / "sft", data, text="b")
    assert weights(tmp_path / "run" / "sft") == "b"


def test_a_model_copied_into_a_run_is_not_replaced(tmp_path: Path, data: Path) -> None:
    """Once a run put a new model in place of 269 MB that somebody had copied there, and exited with 0."""
    (tmp_path / "other.txt").write_text("other text")
    make_model(tmp_path / "mine", tmp_path / "other.txt", text="mine", labels={"version": "pretrained"})
    (tmp_path / "other.txt").unlink()  # its inputs are not here
    target = tmp_path / "run" / "pretrained"
    shutil.copytree(tmp_path / "mine", target)
    with pytest.raises(DataError, match=r"another artifact \(model pretrained\), made as .*mine"):
        make_model(target, data, text="new", labels={"version": "pretrained"})
    assert weights(target) == "mine"
    make_model(tmp_path / "mine2", data, text="mine", labels={"version": "pretrained"})
    (tmp_path / "mine2").rename(tmp_path / "run" / "renamed")
    data.write_text("changed since")
    with pytest.raises(DataError, match=r"made as .*mine2"):
        make_model(tmp_path / "run" / "renamed", data, text="new", labels={"version": "pretrained"})


@pytest.mark.parametrize("labels", [{"version": "rlhf-v1"}, {}], ids=["another version", "none"])
def test_another_steps_artifact_is_not_replaced(tmp_path: Path, data: Path, labels: dict[str, str]) -> None:
    make_model(tmp_path / "out", data, text="sft")
    with pytest.raises(DataError, match="nothing here was changed"):
        make_model(tmp_path / "out", data, text="ppo", labels=labels or {"role": "x"})
    assert weights(tmp_path / "out") == "sft"


def test_a_run_that_was_moved_whole_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    make_model(tmp_path / "run" / "base", _file(tmp_path / "x"), text="base", labels={"version": "base"})
    make_model(tmp_path / "run" / "sft", tmp_path / "run" / "base", text="a")
    (tmp_path / "run").rename(tmp_path / "moved")
    make_model(tmp_path / "moved" / "sft", tmp_path / "moved" / "base", text="b")
    assert weights(tmp_path / "moved" / "sft") == "b"


def _file(path: Path) -> Path:
    path.write_text("x")
    return path


@pytest.mark.parametrize(("name", "said"), [("sandbox", "[1] sandbox\n"), ("other", "[1] sandbox other\n")])
def test_a_stage_is_announced_without_saying_its_name_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    run_stage(
        tmp_path / name,
        kind="sandbox",
        config=Config(),
        inputs={},
        seed=0,
        build=lambda context: {},
        reporter=Reporter(),
    )
    assert capsys.readouterr().err.startswith(said)
