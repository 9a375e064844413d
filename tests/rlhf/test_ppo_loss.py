"""The clipped objective and value loss against hand-made numbers."""

import math

import pytest
import torch

from puna.rlhf.ppo_loss import policy_loss, value_loss

ON = torch.ones(1, 1).bool()


def at_ratio(ratio: float) -> torch.Tensor:
    return torch.tensor([[math.log(ratio)]], requires_grad=True)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "has_gradient"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),
        (0.5, 2.0, -1.0, True),
        (0.5, -2.0, 1.6, False),
        (1.5, -2.0, 3.0, True),
    ],
)
def test_policy_loss_is_clipped_on_the_pessimistic_side(
    ratio: float, advantage: float, expected: float, has_gradient: bool
) -> None:
    logprobs = at_ratio(ratio)
    result = policy_loss(logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), ON, clip=0.2)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    assert bool(logprobs.grad.item() != 0) is has_gradient
    assert result.n_clipped.item() == (0 if has_gradient else 1)
    assert result.approx_kl.item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)


def test_gradient_at_ratio_one_is_minus_the_advantage() -> None:
    logprobs = torch.zeros(2, 2, requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    mask = torch.tensor([[True, True], [True, False]])
    policy_loss(logprobs, torch.zeros(2, 2), advantages, mask, clip=0.2).loss.backward()
    assert logprobs.grad.tolist() == [[-1.0, 2.0], [-3.0, 0.0]]


def test_masked_tokens_cannot_poison_the_loss() -> None:
    logprobs = torch.tensor([[0.0, float("inf")]])
    mask = torch.tensor([[True, False]])
    result = policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]), mask, clip=0.2)
    assert result.loss.item() == -1.0
    assert result.approx_kl.item() == 0.0


def test_value_loss_takes_the_worse_of_value_and_held_value() -> None:
    values, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
    assert value_loss(values, old, returns, ON, clip=0.2).item() == pytest.approx(0.5 * 0.8**2)
    assert value_loss(values, old, returns, ON, clip=10.0).item() == 0.0


def test_value_loss_sums_over_masked_tokens_only() -> None:
    mask = torch.tensor([[True, True, False]])
    loss = value_loss(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 50.0]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(2.5)
