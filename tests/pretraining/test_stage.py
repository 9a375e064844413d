"""The stage end to end at toy size: it learns, ends with the same bits after SIGKILL, and refuses what does not fit."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from puna.core.artifacts import read_manifest
from puna.core.errors import ConfigError, DataError
from puna.core.metrics import read_metrics
from puna.model.checkpoint import load_model
from puna.model.config import ModelConfig
from puna.pretraining import PretrainingConfig, pretrain
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.config import LoopConfig
from puna.training.optimizer import OptimizerConfig

MODEL = ModelConfig(
    dim=32, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=64, max_seq_len=64
)


@pytest.fixture
def config() -> PretrainingConfig:
    return PretrainingConfig(
        model=MODEL,
        seq_len=32,
        loop=LoopConfig(
            optimizer=OptimizerConfig(peak_lr=1e-2),
            total_steps=40,
            warmup_steps=4,
            batch_size=8,
            micro_batch_size=4,
            evaluate_every_steps=20,
            checkpoint_every_steps=7,
        ),
    )


def weights(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("model*.safetensors")))


def test_a_base_model_comes_out_and_has_learned(config, data_folder, tokenizer_folder, tmp_path) -> None:
    inputs = {"data": data_folder, "tokenizer": tokenizer_folder}
    manifest = pretrain(config, **inputs, out=tmp_path / "base", seed=0)
    assert (manifest.kind, manifest.labels) == ("model", {"version": "pretrained"})
    assert manifest.metrics["train_loss"] < 0.5 * math.log(300)
    assert manifest.metrics["tokens"] == 40 * 8 * 32
    validation = manifest.metrics["validation"]
    assert validation.keys() == {
        f"{measure}{source}" for measure in ("loss", "perplexity") for source in ("", "/farm", "/tiny")
    }
    assert validation["perplexity/farm"] == pytest.approx(math.exp(validation["loss/farm"]))
    model = load_model(tmp_path / "base", device="cpu")
    assert manifest.metrics["n_parameters"] == sum(p.numel() for p in model.parameters())
    assert Tokenizer.load(tmp_path / "base").vocab_size == model.config.vocab_size == 300
    rows = read_metrics(tmp_path / "base" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "validation"] == [20, 40]
    assert pretrain(config, **inputs, out=tmp_path / "base", seed=0) == manifest, "unchanged: skipped"


def test_killed_at_any_moment_it_ends_with_the_same_model(
    config, data_folder, tokenizer_folder, tmp_path
) -> None:
    def train(name: str) -> None:
        pretrain(config, data=data_folder, tokenizer=tokenizer_folder, out=tmp_path / name, seed=0)

    train("whole")
    n_killed = 0
    for seconds in (0.1, 0.25):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            train("killed")
            os._exit(0)
        n_killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert n_killed, "the first child was to be killed"
    train("killed")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert read_manifest(tmp_path / "killed").fingerprint == read_manifest(tmp_path / "whole").fingerprint


def test_another_seed_makes_another_model(config, data_folder, tokenizer_folder, tmp_path) -> None:
    short = config.model_copy(update={"loop": config.loop.model_copy(update={"total_steps": 4})})
    for seed in (0, 1):
        pretrain(short, data=data_folder, tokenizer=tokenizer_folder, out=tmp_path / str(seed), seed=seed)
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_rows_longer_than_the_context_are_refused(config, data_folder, tokenizer_folder, tmp_path) -> None:
    longer = config.model_copy(update={"seq_len": 65})
    with pytest.raises(ConfigError, match="context of 64 tokens"):
        pretrain(longer, data=data_folder, tokenizer=tokenizer_folder, out=tmp_path / "base", seed=0)


def test_another_vocabulary_is_refused(config, data_folder, tokenizer_folder, tmp_path) -> None:
    other = config.model_copy(update={"model": MODEL.model_copy(update={"vocab_size": 301})})
    with pytest.raises(ConfigError, match="tokenizer's 300"):
        pretrain(other, data=data_folder, tokenizer=tokenizer_folder, out=tmp_path / "base", seed=0)


def test_an_empty_corpus_is_refused(config, tokenizer_folder, tmp_path) -> None:
    shards = tmp_path / "data" / "shards"
    shards.mkdir(parents=True)
    (shards / "index.json").write_text(json.dumps({"dtype": "uint16", "train": [], "validation": {}}))
    with pytest.raises(DataError, match="33 training tokens, got 0 tokens"):
        pretrain(config, data=tmp_path / "data", tokenizer=tokenizer_folder, out=tmp_path / "base", seed=0)


def test_paper_defaults() -> None:
    config = PretrainingConfig()
    loop, model = config.loop_for(), config.model_config_for(32_000)
    assert loop.batch_size * config.seq_len == 4 * 2**20
    assert loop.n_steps == 476_838  # two trillion tokens, about half a million updates
    assert (loop.lr(1999), model.max_seq_len, torch.tensor(loop.lr(loop.n_steps - 1)).item()) == (
        3e-4,
        4096,
        pytest.approx(3e-5),
    )
