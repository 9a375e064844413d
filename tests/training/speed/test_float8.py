"""The products are those of 8-bit roundings: torch has a kernel for CPUs too, so the arithmetic is tested here."""

import pytest
import torch
from torch import Tensor

from puna.core.machine import SpeedConfig
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.training.losses import next_token_loss
from puna.training.speed import blocks, faster_blocks
from puna.training.speed.float8 import float8_linear


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.detach().float() - b).norm() / b.norm())


def test_output_and_gradients_are_within_8_bits_of_the_exact_ones() -> None:
    """e4m3 rounds by at most 1/16 of a number: two factors, averaged over many, give about 4 %; e5m2 doubles that."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, 256, generator=source).requires_grad_()
    weight = torch.randn(128, 256, generator=source).requires_grad_()
    upstream = torch.randn(4, 64, 128, generator=source)
    out = float8_linear(x, weight)
    assert out.dtype == torch.bfloat16
    exact = x @ weight.t()
    assert relative(out, exact.detach()) < 0.05
    found = torch.autograd.grad(out, (x, weight), upstream.bfloat16())
    for ours, theirs in zip(found, torch.autograd.grad(exact, (x, weight), upstream), strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours, theirs) < 0.09


def test_numbers_of_any_size_keep_their_scale() -> None:
    x, weight = torch.full((16, 32), 1e-6), torch.full((16, 32), 1e5)
    torch.testing.assert_close(float8_linear(x, weight).float(), torch.full((16, 16), 3.2), rtol=0.05, atol=0)
    assert float8_linear(torch.zeros(16, 32), weight).eq(0).all()


def test_every_projection_of_the_blocks_is_8_bit_and_the_loss_barely_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "check_float8", lambda model: None)
    config = ModelConfig(
        dim=64, n_layers=2, n_heads=4, n_kv_heads=4, vocab_size=40, hidden_dim=96, max_seq_len=64
    )
    model = Transformer(config)
    tokens = torch.randint(0, 40, (2, 33), generator=torch.Generator().manual_seed(0))

    def loss() -> tuple[float, int]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                nats, n_targets = next_token_loss(model, model.hidden(tokens[:, :-1]), tokens[:, 1:], None)
            nats.backward()
        n_products = sum(e.count for e in profile.key_averages() if e.key == "aten::_scaled_mm")
        return nats.item() / n_targets, n_products

    plain, none = loss()
    with faster_blocks(model, SpeedConfig(), has_float8=True):
        low, n_products = loss()
    assert (none, n_products) == (0, 2 * 7 * 3)
    assert low == pytest.approx(plain, rel=0.02)
    assert loss()[1] == 0
