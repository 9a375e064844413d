"""AdamW against its formula, clipping against torch's."""

import math

import pytest
import torch
from torch import nn

from puna.training.optimizer import OptimizerConfig, average_and_clip_gradients, make_optimizer, set_lr


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gain = nn.Linear(3, 2, bias=False), nn.Parameter(torch.ones(3))


def test_first_update_follows_the_formula() -> None:
    model, config = nn.Linear(1, 1, bias=False), OptimizerConfig(peak_lr=0.1)
    nn.init.constant_(model.weight, 2.0)
    model.weight.grad = torch.full((1, 1), 0.5)
    make_optimizer(model, config).step()
    # bias correction makes the first step g / (|g| + eps), and decay is decoupled: both times the rate
    expected = 2.0 * (1 - 0.1 * 0.1) - 0.1 * 0.5 / (0.5 + 1e-5)
    assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_fused_updates_equal_plain_ones() -> None:
    torch.manual_seed(0)
    fused, plain = nn.Linear(5, 4), nn.Linear(5, 4)
    plain.load_state_dict(fused.state_dict())
    config = OptimizerConfig(decay_norms=True)
    ours = make_optimizer(fused, config)
    theirs = torch.optim.AdamW(plain.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1)
    for _ in range(5):
        for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        ours.step()
        theirs.step()
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("decay_norms", "expected"), [(False, 1.0), (True, 1 - 3e-4 * 0.1)])
def test_norm_gains_decay_only_when_asked(decay_norms: bool, expected: float) -> None:
    model = Norm()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = model.linear.weight.clone()
    make_optimizer(model, OptimizerConfig(decay_norms=decay_norms)).step()
    torch.testing.assert_close(model.gain, torch.full((3,), expected))
    torch.testing.assert_close(model.linear.weight, before * (1 - 3e-4 * 0.1))


def test_frozen_parameters_are_left_out() -> None:
    model = Norm()
    model.gain.requires_grad_(False)
    optimizer = make_optimizer(model, OptimizerConfig())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_set_lr_reaches_every_group() -> None:
    optimizer = make_optimizer(Norm(), OptimizerConfig())
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clipping_equals_torch_on_the_mean(scale: float) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        a.grad = torch.randn(a.shape) * scale * 7
        b.grad = a.grad / 7
    norm = average_and_clip_gradients(ours.parameters(), n_targets=7, max_norm=1.0)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    torch.testing.assert_close(norm, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_infinite_gradient_shows_in_the_norm() -> None:
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    assert not math.isfinite(average_and_clip_gradients(model.parameters(), n_targets=3, max_norm=1.0).item())
