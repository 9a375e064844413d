"""`puna run` and `puna quickstart`: which recipe, where to, and what is printed at the end."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puna.cli import run as module

SUMMARY = {"report": "r/index.html", "chat_model": "r/rlhf-v3-ppo", "wall_seconds": 9.0, "peak_rss_bytes": 1}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What raise_llama was called with; it does nothing."""
    given: dict[str, Any] = {}

    def record(recipe: Any, **rest: Any) -> None:
        given.update(recipe=recipe, **rest)

    monkeypatch.setattr(module, "raise_llama", record)
    monkeypatch.setattr(module, "quickstart_summary", lambda out: dict(SUMMARY))
    return given


def test_quickstart_is_the_sandbox_recipe(say, asked: dict[str, Any], tmp_path: Path) -> None:
    said = say("quickstart", "--out", tmp_path, "--seed", 2, "--set", "sft.n_epochs=9")
    assert said.exit_code == 0, said.stderr
    assert asked["recipe"].sandbox is not None
    assert asked["recipe"].sft.n_epochs == 9
    assert (asked["out"], asked["seed"], asked["until"]) == (tmp_path, 2, None)
    assert "puna chat r/rlhf-v3-ppo" in said.stdout


def test_a_shipped_recipe_has_a_name(
    say, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert say("run", "sandbox_cpu").exit_code == 0
    assert asked["out"] == Path("runs/sandbox_cpu")


def test_json_is_one_line_with_the_cost_of_this_command(
    say, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(100.0, 2.5)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    said = say("run", "sandbox_cpu", "--out", tmp_path, "--json")
    (line,) = said.stdout.splitlines()
    summary = json.loads(line)
    assert summary["report"] == SUMMARY["report"]
    assert summary["wall_seconds"] == 2.5, "not the 9 of all stages of the run"
    assert summary["peak_rss_bytes"] > 10**7


@pytest.mark.parametrize("as_json", [True, False])
def test_a_run_that_stopped_early_has_no_summary(
    say, asked: dict[str, Any], tmp_path: Path, as_json: bool
) -> None:
    options = ["--json"] * as_json
    said = say("run", "sandbox_cpu", "--out", tmp_path, "--until", "sft", *options)
    assert asked["until"] == "sft"
    if as_json:
        assert json.loads(said.stdout)["until"] == "sft"
    else:
        assert said.stdout.startswith("Stopped after sft")


def test_under_torchrun_it_points_to_pretrain(
    say, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = say("run", "sandbox_cpu", "--out", tmp_path)
    assert said.exit_code == 2
    assert "puna pretrain" in said.stderr
    assert asked == {}
