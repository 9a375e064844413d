"""What a checkpointed block holds after its forward pass is what planning/activation_memory.py says."""

from contextlib import nullcontext

import pytest
import torch

from memory_probe import held_bytes
from puna.core.machine import Checkpointing, SpeedConfig
from puna.model import ModelConfig, Transformer
from puna.model.rope import rotation
from puna.planning.activation_memory import StepShape, kept_block_bytes
from puna.training.speed import faster_blocks
from puna.training.speed.checkpointing import checkpointed


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("is_by_hand", [True, False])
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_kept_bytes(mode: Checkpointing, is_by_hand: bool, n_kv_heads: int) -> None:
    """The input is the caller's, the output is the next block's: one is in the formula, the other in the measure."""
    config = ModelConfig(
        dim=64, n_layers=1, n_heads=4, n_kv_heads=n_kv_heads, hidden_dim=176, vocab_size=64, max_seq_len=512
    )
    block = Transformer(config).layers[0]
    x = torch.randn(2, 448, 64, requires_grad=True)
    angles = rotation(torch.arange(448)[None], head_dim=16, theta=1e4)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return trained(x, angles, None, None)

    shape = StepShape(batch=2, seq=448, is_by_hand=is_by_hand, is_fused=not is_by_hand)
    with faster_blocks(block, SpeedConfig(checkpointing=mode)) if is_by_hand else nullcontext():
        trained = block if is_by_hand else checkpointed(block, mode)
        forward()
        assert held_bytes(forward) == pytest.approx(kept_block_bytes(config, shape, mode), rel=0.01)
