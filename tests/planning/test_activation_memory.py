"""The closed form of what a block keeps against the storages that autograd saves in the real block: to the byte."""

from contextlib import nullcontext

import pytest
import torch

from memory_probe import saved_bytes
from puna.core.machine import SpeedConfig
from puna.model import ModelConfig, Transformer
from puna.model.config import PRESETS
from puna.model.rope import rotation
from puna.planning.activation_memory import StepShape, block_bytes, kept_block_bytes, weight_copy_bytes
from puna.training.speed import faster_blocks

TURN_BYTES = 8
"""A complex number: the rotation, which each block by hand makes for itself, one for each position and pair."""


def saved_by_block(
    config: ModelConfig, *, batch: int, seq: int, dtype: torch.dtype, by_hand: bool = False
) -> int:
    block = Transformer(config).layers[0]
    x = torch.randn(batch, seq, config.dim, requires_grad=True)
    angles = rotation(torch.arange(seq)[None], head_dim=config.head_dim, theta=config.rope_theta)
    known = [*block.parameters(), *angles]
    precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with precision, faster_blocks(block, SpeedConfig()) if by_hand else nullcontext():
        return saved_bytes(lambda: block(x, angles, None, None), apart_from=known)


def config_of(n_kv_heads: int) -> ModelConfig:
    return ModelConfig(
        dim=64, n_layers=1, n_heads=4, n_kv_heads=n_kv_heads, hidden_dim=176, vocab_size=64, max_seq_len=2048
    )


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("batch", "seq"), [(1, 64), (2, 128), (1, 200), (2, 256), (2, 300), (1, 512)])
def test_blocks_by_hand_in_bfloat16(n_kv_heads: int, batch: int, seq: int) -> None:
    config = config_of(n_kv_heads)
    shape = StepShape(batch=batch, seq=seq, is_by_hand=True, is_fused=False)
    planned = block_bytes(config, shape) + weight_copy_bytes(config, shape)
    turns = TURN_BYTES * seq * config.head_dim // 2
    saved = saved_by_block(config, batch=batch, seq=seq, dtype=torch.bfloat16, by_hand=True)
    assert saved == planned + turns


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("batch", "seq"), [(2, 448), (1, 512)])
def test_plain_blocks_in_bfloat16(n_kv_heads: int, batch: int, seq: int) -> None:
    """With fused attention, as on CUDA under FSDP."""
    config = config_of(n_kv_heads)
    shape = StepShape(batch=batch, seq=seq)
    planned = block_bytes(config, shape) + weight_copy_bytes(config, shape)
    assert saved_by_block(config, batch=batch, seq=seq, dtype=torch.bfloat16) == planned


@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize(("batch", "seq"), [(2, 128), (1, 512), (1, 1088)])
def test_plain_blocks_in_float32(n_kv_heads: int, batch: int, seq: int) -> None:
    config = config_of(n_kv_heads)
    shape = StepShape(batch=batch, seq=seq, low=4, is_fused=seq > 1024)
    assert saved_by_block(config, batch=batch, seq=seq, dtype=torch.float32) == block_bytes(config, shape)


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_divides_heads_and_inner_widths_only(tp: int) -> None:
    """The residual stream stays whole: what is left at many GPUs is its part."""
    config = PRESETS["70b"]
    one, cut = (block_bytes(config, StepShape(batch=1, seq=4096, tp=t)) for t in (1, tp))
    stream = 4096 * (16 * config.dim + 8 + 10 * config.dim)
    assert cut - stream == (one - stream) // tp


def test_full_checkpointing_keeps_a_blocks_input() -> None:
    shape = StepShape(batch=2, seq=4096)
    assert kept_block_bytes(PRESETS["7b"], shape, "full") == 2 * 4096 * 4096 * 4
