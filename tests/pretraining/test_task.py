"""Rows of the stream: what is measured, what is hidden, and the loss curve that refactors must not move."""

import math
from pathlib import Path

import pytest
import torch

from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.task import PretrainingTask, document_layout
from puna.training.config import LoopConfig
from puna.training.token_shards import TokenStream, read_index

MODEL = ModelConfig(
    dim=32, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=64, max_seq_len=64
)


def task(data: Path, **changes: object) -> PretrainingTask:
    loop = LoopConfig(batch_size=6, micro_batch_size=4, total_steps=1, warmup_steps=0)
    config = PretrainingConfig(model=MODEL, seq_len=24, loop=loop, **changes)
    return PretrainingTask(Transformer(MODEL), config, data=data, bos_id=1, seed=0)


def test_document_layout_restarts_at_each_document() -> None:
    document_ids, positions = document_layout(torch.tensor([[5, 6, 1, 7, 8, 1], [1, 5, 2, 1, 1, 9]]), 1)
    assert document_ids.tolist() == [[0, 0, 1, 1, 1, 2], [1, 1, 1, 2, 3, 3]]
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 0, 0, 1]]


def test_micro_batches_hold_the_rows_of_one_update(data_folder: Path) -> None:
    batches = task(data_folder).micro_batches(3)
    assert [tuple(batch.shape) for batch in batches] == [(4, 25), (2, 25)]
    assert all(torch.equal(a, b) for a, b in zip(batches, task(data_folder).micro_batches(3), strict=True))


def test_an_epoch_covers_every_window_once(data_folder: Path) -> None:
    pretraining = task(data_folder)
    index = read_index(data_folder)
    stream = TokenStream(data_folder, index.train, index.dtype)
    n_windows = stream.n_windows(24)
    rows = torch.cat([b for step in range(-(-n_windows // 6)) for b in pretraining.micro_batches(step)])
    expected = stream.windows(range(n_windows), 24).tolist()
    assert sorted(rows[:n_windows].tolist()) == sorted(expected)


def test_held_out_loss_counts_every_token_once(data_folder: Path) -> None:
    pretraining = task(data_folder)
    index = read_index(data_folder)
    values = pretraining.evaluate()
    sums, counts = {}, {}
    for source, shard in index.validation.items():
        tokens = TokenStream(data_folder, [shard], index.dtype).read(0, shard.n_tokens)
        nats = 0.0
        for start in range(0, len(tokens) - 1, 24):
            row = tokens[start : start + 25][None]
            with torch.no_grad():
                logprobs = pretraining.model(row[:, :-1]).log_softmax(-1)
            nats -= logprobs.gather(2, row[:, 1:, None]).sum().item()
        sums[source], counts[source] = nats, len(tokens) - 1
        assert values[f"loss/{source}"] == pytest.approx(nats / (len(tokens) - 1), rel=1e-5)
    assert values["loss"] == pytest.approx(sum(sums.values()) / sum(counts.values()), rel=1e-5)
    assert values["perplexity"] == pytest.approx(math.exp(values["loss"]))


def test_validation_tokens_bound_the_measurement(data_folder: Path) -> None:
    fewer, same = task(data_folder, validation_tokens=50), task(data_folder, validation_tokens=10**6)
    assert fewer.evaluate()["loss/farm"] != same.evaluate()["loss/farm"]
    assert same.evaluate() == task(data_folder).evaluate()


def test_isolated_documents_do_not_see_one_another(data_folder: Path) -> None:
    isolated, joined = task(data_folder, isolate_documents=True), task(data_folder)
    a, b = torch.tensor([[1, 9, 8, 2]]), torch.tensor([[1, 7, 6, 5, 2]])
    alone = [joined.loss(part).sum.item() for part in (a, b)]
    # </s> -> <s> is the one target that joining adds, predicted from the first document alone
    logprobs = joined.model(a).log_softmax(-1)
    together = isolated.loss(torch.cat([a, b], dim=1)).sum.item()
    assert together == pytest.approx(sum(alone) - logprobs[0, -1, 1].item(), rel=1e-5)
    assert joined.loss(torch.cat([a, b], dim=1)).sum.item() != pytest.approx(together, rel=1e-6)
