"""The suite as a stage and as a hook, on shards of a tiny corpus; its settings refuse what cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from puna.core.errors import DataError
from puna.core.machine import Machine
from puna.evaluation import decoding
from puna.evaluation.decoding import DecodingConfig, measure_decoding
from puna.evaluation.text import TextEvaluationConfig, TextSuite, evaluate_text, stage
from puna.evaluation.text.documents import held_out_documents
from puna.model.accounting import kv_cache_bytes
from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer
from puna.training.hooks import EvaluationHook
from recorded_loads import ELSEWHERE, record_loads

CONFIG = TextEvaluationConfig(
    n_tokens=32,
    position_edges=(8, 16),
    max_documents=4,
    continuation_tokens=4,
    max_items=6,
    recall_distances=(4, 16),
    passage_tokens=6,
    cue_tokens=2,
    n_passages=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    sizes = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=32, max_seq_len=32
    )
    save_model(Transformer(sizes, seed=0), folder)
    lines = [f"The llama eats {n} oats." for n in range(300)]
    train_tokenizer(lines, folder / "tokenizer.model", TokenizerConfig(vocab_size=300))
    Tokenizer.load(folder).save(folder, max_seq_len=32)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, one with documents too short to be measured among the long ones."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "shards").mkdir()
    draw = np.random.default_rng(0)
    index: dict = {"dtype": "uint16", "train": [], "validation": {}}
    for source, lengths in {"books": [40, 8, 50, 33, 36, 45], "code": [32, 60, 35, 40]}.items():
        ids = np.concatenate([np.concatenate([[1], draw.integers(3, 300, n - 2), [2]]) for n in lengths])
        ids.astype("<u2").tofile(folder / "shards" / f"{source}.bin")
        index["validation"][source] = {"file": f"{source}.bin", "n_tokens": len(ids)}
    (folder / "shards" / "index.json").write_text(json.dumps(index))
    return folder


def test_documents_are_cut_at_their_openings(data: Path) -> None:
    found = held_out_documents(data, bos_id=1, n_tokens=32)
    assert {source: [len(d) for d in documents] for source, documents in found.items()} == {
        "books": [40, 50, 33, 36, 45],
        "code": [32, 60, 35, 40],
    }
    assert all(document[0] == 1 for document in found["books"])
    with pytest.raises(DataError, match="none longer than 60"):
        held_out_documents(data, bos_id=1, n_tokens=61)


def test_the_stage_measures_every_source_and_is_skipped_when_unchanged(model, data, tmp_path) -> None:
    given = {"model": model, "data": data, "out": tmp_path / "out", "seed": 0, "labels": {"variant": "a"}}
    manifest = evaluate_text(CONFIG, **given)
    found = manifest.metrics
    assert manifest.kind == "text_evaluation"
    assert found["context"] == 32
    assert found["positions"].keys() == {"1-8", "8-16", "16-32"}
    assert {s: row["n"] for s, row in found["by_source"].items()} == {"books": 4 * 31, "code": 4 * 31}
    assert found["choice"]["interval"][2] == sum(
        row["choice"]["interval"][2] for row in found["by_source"].values()
    )
    assert found["recall"].keys() == {"4", "16"}
    assert 100 < found["positions"]["16-32"]["perplexity"] < 1500, (
        "an untrained model knows nothing of 300 words"
    )
    assert evaluate_text(CONFIG, **given) == manifest
    shorter = evaluate_text(CONFIG, **given | {"out": tmp_path / "short", "context": 8}).metrics
    assert shorter["positions"]["1-8"] == pytest.approx(found["positions"]["1-8"])
    assert shorter["positions"]["16-32"] != found["positions"]["16-32"]


def test_the_machine_is_obeyed_and_changes_no_artifact(model, data, tmp_path, monkeypatch) -> None:
    devices, precisions, autocast = record_loads(monkeypatch, stage), [], torch.autocast
    devices_of_decoding = record_loads(monkeypatch, decoding)
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: precisions.append((a, k)) or autocast(*a, **k))
    given = {"model": model, "data": data, "out": tmp_path / "out", "seed": 0, "dtype": "bfloat16"}
    there = evaluate_text(CONFIG, **given, machine=ELSEWHERE)
    assert evaluate_text(CONFIG, **given, machine=Machine(device="cpu")) == there, "another machine: skipped"
    assert devices == [torch.device("cpu:0")]
    assert precisions == [(("cpu",), {"dtype": torch.bfloat16, "enabled": True})]
    full = evaluate_text(CONFIG, **given | {"dtype": "float32", "out": tmp_path / "full"})
    assert (full.config["dtype"], there.config["dtype"]) == ("float32", "bfloat16")
    assert full.fingerprint != there.fingerprint
    one = DecodingConfig(prompt_tokens=(8,), new_tokens=2, max_batch_size=1)
    measure_decoding(one, model=model, out=tmp_path / "decoding", seed=0, machine=ELSEWHERE)
    assert devices_of_decoding == [torch.device("cpu:0")]


def test_autocast_is_that_of_the_models_device(model, data, tmp_path, monkeypatch) -> None:
    """No GPU is needed to ask: the device is a pretended one, and the measurement is cut off."""
    asked = []
    monkeypatch.setattr(Machine, "torch_device", torch.device("cuda", 1))
    monkeypatch.setattr(stage, "load_model", lambda folder, *, device: Transformer.__new__(Transformer))
    monkeypatch.setattr(Transformer, "eval", lambda self: self)
    monkeypatch.setattr(stage, "measure_text", lambda *args, **given: given and {})
    monkeypatch.setattr(torch, "autocast", lambda kind, **named: asked.append(kind))
    evaluate_text(CONFIG, model=model, data=data, out=tmp_path / "out", seed=0, context=8)
    assert asked == ["cuda"]


def test_as_a_hook_it_gives_the_same_numbers(model, data, tmp_path) -> None:
    suite = TextSuite(data=data, bos_id=1, seed=0, every_steps=10, config=CONFIG)
    assert isinstance(suite, EvaluationHook)
    sizes = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=32, max_seq_len=32
    )
    values = suite.evaluate(Transformer(sizes, seed=0).eval(), 10)
    stage = evaluate_text(CONFIG, model=model, data=data, out=tmp_path / "out", seed=0).metrics
    assert values["perplexity/1-8"] == pytest.approx(stage["positions"]["1-8"]["perplexity"], rel=1e-5)
    assert values["choice"] == stage["choice"]["accuracy"]
    assert values["recall/4"] == stage["recall"]["4"]["found"]["accuracy"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cue_tokens": 6},
        {"recall_distances": (25,)},
        {"position_edges": (16, 8)},
        {"position_edges": (32,)},
        {"continuation_tokens": 32},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TextEvaluationConfig.model_validate(CONFIG.model_dump() | wrong)


def test_decoding_doubles_batches_until_the_cache_is_full(model, tmp_path) -> None:
    sizes = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=32, max_seq_len=32
    )
    room = kv_cache_bytes(sizes, batch_size=4, seq_len=20)
    config = DecodingConfig(prompt_tokens=(16, 24), new_tokens=4, max_batch_size=16, cache_bytes=room)
    found = measure_decoding(config, model=model, out=tmp_path / "out", seed=0).metrics["curves"]
    assert [row["batch_size"] for row in found["16"]] == [1, 2, 4, 8]
    assert [row["batch_size"] for row in found["24"]] == [1, 2, 4]
    for rows in found.values():
        *fit, full = rows
        assert full["tokens_per_second"] is None
        assert full["cache_bytes"] > room
        for row in fit:
            assert row["tokens_per_second"] == pytest.approx(
                row["batch_size"] * 1000 / row["milliseconds_per_token"]
            )
    assert torch.get_default_dtype() == torch.float32
