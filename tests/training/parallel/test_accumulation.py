"""The cut of a batch into micro-batches changes nothing, though its rows have different numbers of targets."""

from pathlib import Path

import pytest
import torch

from training.parallel import program


def test_one_by_eight_is_two_by_four_is_eight_by_one(tmp_path: Path) -> None:
    """Micro-batches of 8, 4, 2 and 1 of the same 8 rows, 12 updates."""
    loop = program.LOOP.model_copy(update={"total_steps": 12})
    tensors = {
        size: program.train(tmp_path / str(size), loop=loop, micro_batch_size=size) for size in (8, 4, 2, 1)
    }
    task = program.CountingTask(torch.nn.Linear(1, 1), micro_batch_size=1)
    n_targets = {int((3 + batch[0, 0] % 13).clamp(max=16)) for batch in task.micro_batches(0)}
    assert len(n_targets) > 2, "rows differ in their targets"
    expected = program.losses(tmp_path / "8")
    for size in (4, 2, 1):
        assert program.losses(tmp_path / str(size)) == pytest.approx(expected, rel=1e-6)
        for name, tensor in tensors[8].items():
            torch.testing.assert_close(tensors[size][name], tensor, rtol=1e-4, atol=2e-6)
