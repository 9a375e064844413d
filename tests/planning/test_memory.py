"""The plan of a training step's memory against the allocator's own account of real steps on a CPU."""

from typing import get_args

import pytest
import torch

from memory_probe import peak_bytes
from puna.core.machine import SpeedConfig
from puna.model import ModelConfig, Transformer
from puna.model.attention import MATMUL_MAX_KEYS
from puna.model.config import PRESETS
from puna.planning.activation_memory import StepShape
from puna.planning.layouts import PlannedLayout
from puna.planning.memory import PARTS, Moment, StepPlan, memory_plan
from puna.training.linear_cross_entropy import CHUNK_ROWS
from puna.training.losses import next_token_loss
from puna.training.optimizer import OptimizerConfig, average_and_clip_gradients, make_optimizer
from puna.training.speed import blocks, faster_blocks

WITHIN = 0.10
"""What the plan may be off."""


def measured(config: ModelConfig, *, batch: int, seq: int, dtype: torch.dtype, n_micro_batches: int) -> int:
    """Highest bytes of tensors in the second update, with weights and moments, which the first one makes."""
    model = Transformer(config, seed=0)
    optimizer = make_optimizer(model, OptimizerConfig())
    static = 4 * sum(p.numel() for p in model.parameters())

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        for _ in range(n_micro_batches):
            rows = torch.randint(config.vocab_size, (batch, seq + 1))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                hidden = model.hidden(rows[:, :-1])
                nats, _ = next_token_loss(model, hidden, rows[:, 1:], None)
            del hidden
            nats.backward()
        average_and_clip_gradients(model.parameters(), n_targets=batch * seq, max_norm=1.0)
        optimizer.step()

    with faster_blocks(model, SpeedConfig()):
        update()
        moments = sum(t.numel() * 4 for state in optimizer.state.values() for t in state.values() if t.ndim)
        assert moments == 2 * static
        optimizer.zero_grad(set_to_none=True)
        return static + moments + peak_bytes(update)


def planned(
    config: ModelConfig, *, batch: int, seq: int, dtype: torch.dtype, n_micro_batches: int, by_hand: bool
):
    is_low = dtype == torch.bfloat16
    by_hand = by_hand and is_low
    is_fused = is_low and not by_hand and seq > MATMUL_MAX_KEYS
    shape = StepShape(batch=batch, seq=seq, low=2 if is_low else 4, is_by_hand=by_hand, is_fused=is_fused)
    step = StepPlan(shape=shape, n_micro_batches=n_micro_batches, logits_rows=CHUNK_ROWS["cpu"])
    return memory_plan(config, PlannedLayout(), step)


SMALL = ModelConfig(
    dim=128, n_layers=3, n_heads=4, n_kv_heads=2, hidden_dim=352, vocab_size=1024, max_seq_len=512
)
MIDDLE = ModelConfig(
    dim=256, n_layers=6, n_heads=8, n_kv_heads=8, hidden_dim=688, vocab_size=4096, max_seq_len=512
)
LARGE = ModelConfig(
    dim=384, n_layers=8, n_heads=6, n_kv_heads=2, hidden_dim=1024, vocab_size=4096, max_seq_len=512
)
BF16, FP32 = torch.bfloat16, torch.float32


def compare(
    config: ModelConfig, batch: int, seq: int, dtype: torch.dtype, n: int, by_hand: bool = True
) -> None:
    plan = planned(config, batch=batch, seq=seq, dtype=dtype, n_micro_batches=n, by_hand=by_hand)
    found = measured(config, batch=batch, seq=seq, dtype=dtype, n_micro_batches=n)
    ratio = plan.n_bytes / found
    print(
        f"plan {plan.n_bytes / 2**20:.1f} MiB at {plan.moment}, measured {found / 2**20:.1f}, ratio {ratio:.3f}"
    )
    assert abs(ratio - 1) <= WITHIN, plan


@pytest.mark.parametrize(
    ("batch", "seq", "dtype", "n"),
    [(2, 128, BF16, 1), (4, 512, BF16, 1), (1, 64, BF16, 2), (2, 128, FP32, 1), (1, 512, FP32, 2)],
)
def test_a_small_step(batch: int, seq: int, dtype: torch.dtype, n: int) -> None:
    compare(SMALL, batch, seq, dtype, n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "seq", "dtype", "n"),
    [(8, 512, BF16, 1), (4, 256, BF16, 2), (1, 128, BF16, 1), (8, 512, FP32, 1), (4, 256, FP32, 2)],
)
@pytest.mark.parametrize("config", [MIDDLE, LARGE], ids=["7M", "15M"])
def test_steps_of_real_size(config: ModelConfig, batch: int, seq: int, dtype: torch.dtype, n: int) -> None:
    compare(config, batch, seq, dtype, n)


@pytest.mark.parametrize(("batch", "seq"), [(1, 512), (4, 448)])
def test_plain_blocks_as_fsdp_runs_them(monkeypatch: pytest.MonkeyPatch, batch: int, seq: int) -> None:
    """Blocks under FSDP or a compiler are the plain ones, here with the fused attention that CUDA has too."""
    monkeypatch.setattr(blocks, "suits_block", lambda *_: False)
    compare(SMALL, batch, seq, BF16, 1, by_hand=False)


@pytest.mark.parametrize("model", ["nano", "7b", "70b"])
@pytest.mark.parametrize(
    "layout", [PlannedLayout(), PlannedLayout(dp_shard=8), PlannedLayout(dp_replicate=2, dp_shard=4, tp=2)]
)
def test_parts_have_names_and_no_part_is_negative(model: str, layout: PlannedLayout) -> None:
    plan = memory_plan(PRESETS[model], layout, StepPlan(shape=StepShape(batch=1, seq=512)))
    assert set(plan.parts) | {"allowance"} == set(PARTS)
    assert min(plan.parts.values()) >= 0
    assert plan.moment in get_args(Moment)


def test_a_long_batch_peaks_at_the_activations_and_a_short_one_at_the_gradients() -> None:
    long = memory_plan(MIDDLE, PlannedLayout(), StepPlan(shape=StepShape(batch=8, seq=512)))
    short = memory_plan(LARGE, PlannedLayout(), StepPlan(shape=StepShape(batch=1, seq=64)))
    assert long.parts["activations"] > long.parts["gradients"]
    assert short.parts["gradients"] > short.parts["activations"]
