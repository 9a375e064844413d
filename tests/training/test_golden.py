"""Fifty-step loss curves: exact on the platform they were written on, 1e-5 elsewhere.

`python tests/training/test_golden.py` rewrites them; the commit that does so says why they moved.
"""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puna.core.artifacts import StageContext
from puna.core.config import resolve
from puna.core.devices import hardware
from puna.core.metrics import read_metrics
from puna.core.progress import quiet
from puna.core.seeding import generator
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.task import PretrainingTask
from puna.supervised_finetuning.task import FinetuningTask
from puna.training.config import LoopConfig
from puna.training.loop import run
from puna.training.optimizer import OptimizerConfig
from puna.training.order import ShuffledOrder
from puna.training.packing import TokenizedExample, pack
from puna.training.task import TrainingTask

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = ModelConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=97, hidden_dim=128, max_seq_len=64
)
CONFIG = PretrainingConfig(
    model=MODEL,
    seq_len=48,
    loop=LoopConfig(
        optimizer=OptimizerConfig(peak_lr=3e-3),
        total_steps=100,
        warmup_steps=5,
        batch_size=8,
        micro_batch_size=4,
        log_every_steps=1,
    ),
)


def sequences(n: int) -> list[list[int]]:
    """<s>, a start, a stride and multiples of it modulo 97, </s>: something a model can learn."""
    draws = torch.randint(3, 40, (n, 3), generator=generator(0, "golden")).tolist()
    return [[1, a, d, *((a + d * i) % 94 + 3 for i in range(length)), 2] for a, d, length in draws]


def pretraining_task(folder: Path) -> TrainingTask:
    tokens = [token for sequence in sequences(200) for token in sequence]
    shards = folder / "shards"
    shards.mkdir()
    (shards / "train.bin").write_bytes(np.array(tokens, dtype="<u2").tobytes())
    train = [{"file": "train.bin", "n_tokens": len(tokens)}]
    (shards / "index.json").write_text(json.dumps({"dtype": "uint16", "train": train, "validation": {}}))
    return PretrainingTask(Transformer(MODEL), CONFIG, data=folder, bos_id=1, seed=0)


def finetuning_task(folder: Path) -> TrainingTask:
    examples = [TokenizedExample(s, [False] * 3 + [True] * (len(s) - 3)) for s in sequences(200)]
    train, none = pack(examples, seq_len=48), pack([], seq_len=48)
    order = ShuffledOrder(len(train), batch_size=8, seed=0)
    return FinetuningTask(Transformer(MODEL), train=train, validation=none, order=order, micro_batch_size=4)


TASKS = {"pretraining": pretraining_task, "supervised_finetuning": finetuning_task}


def loss_curve(stage: str, folder: Path) -> list[float]:
    context = StageContext(folder=folder / "artifact", state=folder / "state", seed=0, reporter=quiet())
    (folder / "artifact").mkdir()
    run(TASKS[stage](folder), CONFIG.loop, context)
    context.close()
    rows = read_metrics(folder / "artifact" / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


def this_platform() -> dict[str, str]:
    return {"machine": platform.machine(), "cpu": hardware()["cpu"], "torch": torch.__version__}


@pytest.mark.parametrize("stage", TASKS)
def test_loss_curve_has_not_moved(stage: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / f"{stage}_loss.json").read_text())
    once = {"device": "auto"}  # a setting when the curves were written, the machine's now
    assert golden["config"] == resolve(CONFIG) | once, "the golden curve belongs to other settings"
    losses = loss_curve(stage, tmp_path)
    if golden["platform"] == this_platform():
        assert losses == golden["losses"]
    else:
        assert losses == pytest.approx(golden["losses"], rel=1e-5)
    assert losses[-1] < 0.85 * losses[0]


def rewrite() -> None:
    """Write both curves of this platform."""
    torch.set_num_threads(1)
    for stage in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            golden: dict[str, Any] = {"platform": this_platform(), "config": resolve(CONFIG)}
            golden["losses"] = loss_curve(stage, Path(folder))
        (GOLDEN / f"{stage}_loss.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    rewrite()
