"""An interrupted run goes on where it is the same one; other settings need a word, other sizes another folder."""

import json
import re
from pathlib import Path

import pytest

from puna.core.errors import ConfigError, NumericsError
from puna.core.manifest import read_manifest
from puna.core.metrics import read_metrics
from puna.core.progress import Reporter
from puna.model.config import ModelConfig
from puna.pretraining import PretrainingConfig, pretrain
from puna.training.config import LoopConfig
from puna.training.gradients import sum_gradients
from puna.training.optimizer import OptimizerConfig
from recorded_loads import ELSEWHERE

MODEL = ModelConfig(
    dim=32, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=64, max_seq_len=64
)


def config_with(**loop: object) -> PretrainingConfig:
    settings = {
        "optimizer": OptimizerConfig(peak_lr=1e-2),
        "total_steps": 12,
        "warmup_steps": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "log_every_steps": 1,
        "checkpoint_every_steps": 4,
    }
    return PretrainingConfig(model=MODEL, seq_len=32, loop=LoopConfig(**settings | loop))


@pytest.fixture
def interrupted(data_folder: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch):
    """A run stopped in its seventh update; calling it goes on, perhaps with other settings."""
    told: list[str] = []
    monkeypatch.setattr(Reporter, "log", lambda self, text: told.append(text))

    def train(config: PretrainingConfig, **more: object):
        return pretrain(
            config,
            data=data_folder,
            tokenizer=tokenizer_folder,
            out=tmp_path / "base",
            seed=0,
            reporter=Reporter(),
            **more,
        )

    with monkeypatch.context() as patch:
        patch.setattr("puna.training.train_step.sum_gradients", _stop_at(6))
        with pytest.raises(KeyboardInterrupt):
            train(config_with())
    assert (tmp_path / ".base.partial" / "state" / "step-4").is_dir()
    train.told = told
    return train


def _stop_at(step: int):
    def stop(task, config, at, *rest, **named):
        if at == step:
            raise KeyboardInterrupt
        return sum_gradients(task, config, at, *rest, **named)

    return stop


def test_the_same_settings_go_on(interrupted, tmp_path: Path) -> None:
    manifest = interrupted(config_with())
    assert "changed_settings" not in manifest.metrics
    rows = read_metrics(tmp_path / "base" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "train"] == [*range(1, 13)]


@pytest.mark.parametrize("accepts_changes", [False, True])
def test_another_architecture_is_refused_by_name(interrupted, tmp_path: Path, accepts_changes: bool) -> None:
    wider = config_with().model_copy(update={"model": MODEL.model_copy(update={"hidden_dim": 96})})
    with pytest.raises(ConfigError, match=r"model\.hidden_dim: expected 64.*step-4, got 96") as caught:
        interrupted(wider, accepts_changes=accepts_changes)
    assert "--accept-changes" not in str(caught.value)
    assert (tmp_path / ".base.partial" / "state" / "step-4").is_dir()


def test_other_settings_are_refused_until_accepted_and_are_then_recorded(interrupted, tmp_path: Path) -> None:
    lower = config_with(optimizer=OptimizerConfig(peak_lr=5e-3))
    with pytest.raises(ConfigError, match=r"loop\.optimizer\.peak_lr: expected 0.01.*--accept-changes"):
        interrupted(lower)
    manifest = interrupted(lower, accepts_changes=True)
    change = "after step-4: loop.optimizer.peak_lr from 0.01 to 0.005"
    assert manifest.metrics["changed_settings"] == [change]
    assert any(change in text for text in interrupted.told)
    rates = [
        row["lr"] for row in read_metrics(tmp_path / "base" / "metrics.jsonl") if row["split"] == "train"
    ]
    assert rates[3] == pytest.approx(config_with().loop.lr(3))
    assert rates[4] == pytest.approx(lower.loop.lr(4))
    assert read_manifest(tmp_path / "base").config["loop"]["optimizer"]["peak_lr"] == 5e-3


def test_newer_code_goes_on(interrupted, tmp_path: Path) -> None:
    request = tmp_path / ".base.partial" / "request"
    request.write_text(re.sub(r"\d+\.\d+\.\d+", "0.0.1", request.read_text()))
    interrupted(config_with())
    assert any("continuing the interrupted build" in text for text in interrupted.told)


def test_another_machine_goes_on_unasked(interrupted, tmp_path: Path) -> None:
    manifest = interrupted(config_with(), machine=ELSEWHERE)
    assert "changed_settings" not in manifest.metrics
    assert manifest.metrics["system"]["energy"]["pue"] == 1.75


def test_a_run_from_when_the_device_was_a_setting_goes_on(interrupted, tmp_path: Path) -> None:
    path = tmp_path / ".base.partial" / "state" / "pretraining.json"
    content = json.loads(path.read_text())
    content["request"]["device"] = "auto"
    path.write_text(json.dumps(content))
    assert "changed_settings" not in interrupted(config_with()).metrics


def test_a_finished_run_leaves_an_interrupted_one_of_other_settings_alone(
    data_folder: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for the finished one again must not throw away the states of the other."""

    def train(config: PretrainingConfig):
        inputs = {"data": data_folder, "tokenizer": tokenizer_folder, "out": tmp_path / "base"}
        return pretrain(config, **inputs, seed=0)

    finished = train(config_with())
    longer = config_with(total_steps=20)
    with monkeypatch.context() as patch:
        patch.setattr("puna.training.train_step.sum_gradients", _stop_at(6))
        with pytest.raises(KeyboardInterrupt):
            train(longer)
    assert train(config_with()) == finished
    assert (tmp_path / ".base.partial" / "state" / "step-4").is_dir()
    assert train(longer).metrics["steps"] == 20
    assert not (tmp_path / ".base.partial").exists()


def test_a_run_that_diverged_begins_again_at_a_lower_rate(
    data_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """Its first update spoiled the weights: no state is left to go on from, and none to accept changes for."""

    def train(config: PretrainingConfig, **more: object):
        inputs = {"data": data_folder, "tokenizer": tokenizer_folder, "out": tmp_path / "base"}
        return pretrain(config, **inputs, seed=0, **more)

    hot = {"optimizer": OptimizerConfig(peak_lr=10.0), "warmup_steps": 0, "checkpoint_every_steps": 1}
    with pytest.raises(NumericsError, match=r"Lower peak_lr"):
        train(config_with(**hot))
    cooler = config_with(**hot | {"optimizer": OptimizerConfig(peak_lr=1e-3)})
    assert train(cooler).metrics["train_loss"] < 5.8
