"""Trackers get every row; one that is not installed is named before the training starts."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from puna.core.errors import ConfigError
from puna.core.metrics import MetricsLog
from puna.core.trackers import TrackingConfig, open_trackers


class _Run:
    def __init__(self, **given: Any) -> None:
        self.given, self.rows, self.is_finished = given, [], False

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.rows.append(values if step is None else {"step": step, **values})

    def define_metric(self, name: str, **options: object) -> None: ...

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[_Run]]:
    """Stand-ins for both packages; the runs they were asked for."""
    made: dict[str, list[_Run]] = {"wandb": [], "trackio": []}
    for name, list_ in made.items():

        def init(list_: list[_Run] = list_, **given: Any) -> _Run:
            list_.append(_Run(**given))
            return list_[-1]

        module: Any = types.ModuleType(name)
        module.init = init
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_every_number_reaches_every_tracker(runs: dict[str, list[_Run]], tmp_path: Path) -> None:
    config = TrackingConfig(trackers=("wandb", "trackio"), project="llamas")
    log = MetricsLog(tmp_path / "artifact")
    log.attach(open_trackers(config, name="7b", state=tmp_path, settings={"seed": 3}))
    log.write(10, "train", loss=2.5, phase="warm-up", bad=float("nan"))
    log.write(10, "validation", loss=3.0)
    log.close()
    for (run,) in runs.values():
        assert run.rows == [{"step": 10, "train/loss": 2.5}, {"step": 10, "validation/loss": 3.0}]
        assert run.is_finished
        assert (run.given["project"], run.given["config"]) == ("llamas", {"seed": 3})


def test_a_resumed_training_goes_on_with_its_run(runs: dict[str, list[_Run]], tmp_path: Path) -> None:
    config = TrackingConfig(trackers=("wandb",))
    for _ in range(2):
        open_trackers(config, name="7b", state=tmp_path, settings={})
    first, second = runs["wandb"]
    assert first.given["id"] == second.given["id"]
    assert second.given["resume"] == "allow"
    (tmp_path / "other").mkdir()
    open_trackers(config, name="7b", state=tmp_path / "other", settings={})
    assert runs["wandb"][2].given["id"] != first.given["id"]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_trackers(TrackingConfig(trackers=("wandb",)), name="x", state=tmp_path, settings={})


def test_no_tracker_is_no_sink(tmp_path: Path) -> None:
    assert open_trackers(TrackingConfig(), name="x", state=tmp_path, settings={}) == []
    assert list(tmp_path.iterdir()) == []


WRITE = """
import sys
from pathlib import Path
from puna.core.metrics import MetricsLog
from puna.core.trackers import TrackingConfig, open_trackers
folder = Path(sys.argv[1])
for steps in ((1, 2), (2, 3)):  # the second attempt does step 2 again
    log = MetricsLog(folder / "artifact")
    log.attach(open_trackers(
        TrackingConfig(trackers=(sys.argv[2],)), name="tiny", state=folder, settings={"dim": 8}))
    for step in steps:
        log.write(step, "train", loss=3.0 / step)
    log.close()
"""


def written(tracker: str, folder: Path, **variables: str) -> None:
    """Two attempts at one training, in a process of their own."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": ":".join(sys.path),
        **variables,
    }
    subprocess.run(
        [sys.executable, "-c", WRITE, str(folder), tracker],
        env=environment,
        check=True,
        timeout=120,
        cwd=folder,
    )


def test_wandb_itself_writes_an_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    written("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    found = sorted(tmp_path.rglob("*.wandb"))
    assert len(found) == 2
    assert len({path.name for path in found}) == 1, "both attempts belong to one run"
    assert b"train/loss" in found[0].read_bytes()


def test_trackio_itself_keeps_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    written("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"), TRACKIO_AUTO_LOG_CPU="0")
    read = "import json,trackio; r = trackio.Api().runs('puna'); print(json.dumps([len(list(r))]))"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path),
                   "TRACKIO_DIR": str(tmp_path / "trackio")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [1]
