"""A model that cannot learn two rows by heart has a fault somewhere between its loss and its optimizer."""

import pytest
import torch

from puna.core.seeding import generator
from puna.training.config import LoopConfig
from puna.training.loop import run
from puna.training.optimizer import OptimizerConfig


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_rows_are_learned_to_a_hundredth_of_a_nat(dtype, make_task, make_context) -> None:
    task = make_task(rows=2, micro_batch_size=1)
    rows = torch.randint(0, 32, (2, 17), generator=generator(7, "by heart"))
    rows[:, 0] = torch.tensor([1, 2])  # two beginnings, so that either row can be known from its first token
    task.micro_batches = lambda step: rows.split(1)
    config = LoopConfig(
        optimizer=OptimizerConfig(peak_lr=1e-2, weight_decay=0.0),
        total_steps=400,
        warmup_steps=20,
        final_lr_fraction=0.0,
        dtype=dtype,
    )
    context = make_context(dtype)
    metrics = run(task, config, context)
    context.close()
    assert metrics["train_loss"] < 0.01
