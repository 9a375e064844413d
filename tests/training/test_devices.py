"""Batches follow their model to its device: shown on "meta", where mixed arithmetic fails without a GPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from puna.model import ScoreModel
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.task import PretrainingTask
from puna.reward_modeling.encoding import EncodedPair, PairBatch
from puna.reward_modeling.task import RankingTask
from puna.supervised_finetuning.task import FinetuningTask
from puna.training import LoopConfig, ShuffledOrder
from puna.training.packing import TokenizedExample, pack
from ranked_pairs import comparison

MODEL = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=50, hidden_dim=32, max_seq_len=32)
META = torch.device("meta")


@pytest.fixture(autouse=True)
def losses(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each loss was computed from. torch knows no autocast on "meta", which the loss itself switches off."""
    given: list[Any] = []

    def record(model: Any, hidden: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, int]:
        given.extend(tensor for tensor in (hidden, targets, mask) if tensor is not None)
        return hidden.sum(), 1

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr("puna.pretraining.task.next_token_loss", record)
    monkeypatch.setattr("puna.supervised_finetuning.task.next_token_loss", record)
    return given


def model() -> Transformer:
    with META:
        return Transformer(MODEL)


def test_pretraining_computes_where_its_model_is(tmp_path: Path, losses: list[Any]) -> None:
    (tmp_path / "shards").mkdir()
    np.arange(200, dtype="<u2").clip(max=49).tofile(tmp_path / "shards" / "train.bin")
    index = {"dtype": "uint16", "train": [{"file": "train.bin", "n_tokens": 200}], "validation": {}}
    (tmp_path / "shards" / "index.json").write_text(json.dumps(index))
    loop = LoopConfig(batch_size=2, micro_batch_size=2)
    for isolate in (False, True):
        config = PretrainingConfig(model=MODEL, seq_len=16, isolate_documents=isolate, loop=loop)
        task = PretrainingTask(model(), config, data=tmp_path, bos_id=1, seed=0)
        (batch,) = task.micro_batches(0)
        task.loss(batch).sum.backward()
        assert task.model.norm.weight.grad.device == META
    assert {tensor.device for tensor in losses} == {META}


def test_finetuning_computes_where_its_model_is(losses: list[Any]) -> None:
    rows = pack([TokenizedExample([*range(1, 15)], [False] * 4 + [True] * 10)] * 4, seq_len=16)
    order = ShuffledOrder(len(rows), batch_size=2, seed=0)
    task = FinetuningTask(model(), train=rows, validation=rows, order=order, micro_batch_size=2)
    (batch,) = task.micro_batches(0)
    task.loss(batch).sum.backward()
    assert task.model.norm.weight.grad.device == META
    assert {tensor.device for tensor in losses} == {META}


def test_reward_modelling_computes_where_its_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch is cut short before scores are read by a mask, whose number "meta" does not know."""
    seen: list[PairBatch] = []
    monkeypatch.setattr(PairBatch, "scores", lambda self, model: seen.append(self) or 1 / 0)
    pairs = [EncodedPair(comparison(n, guideline="safety"), [1, 5, 6, 2], [1, 7, 2]) for n in range(2)]
    with META:
        scorer = ScoreModel(Transformer(MODEL))
    task = RankingTask(
        scorer,
        train=pairs,
        test=[],
        order=ShuffledOrder(2, batch_size=2, seed=0),
        micro_batch_size=2,
        test_batch_size=2,
        margin="small",
        safety_loss_weight=1.0,
    )
    (batch,) = task.micro_batches(0)
    with pytest.raises(ZeroDivisionError):
        task.loss(batch)
    (moved,) = seen
    held = [getattr(moved, name) for name in ("margin", "is_labelled", "is_safe")]
    held += [getattr(moved.rows, name) for name in ("tokens", "targets", "positions", "target_mask")]
    assert {tensor.device for tensor in held if isinstance(tensor, Tensor)} == {META}
    rows = moved.rows
    assert scorer(rows.tokens, rows.positions, rows.document_ids).device == META
