"""GAE against closed forms and invariants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.rlhf.advantages import gae


def test_gae_lambda_one_is_the_monte_carlo_return() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 5, generator=generator), torch.randn(2, 5, generator=generator)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    advantages, returns = gae(rewards, values, mask)
    for row, length in enumerate((5, 3)):
        for t in range(length):
            monte_carlo = rewards[row, t:length].sum()
            assert returns[row, t].item() == pytest.approx(monte_carlo.item(), abs=1e-5)
            assert advantages[row, t].item() == pytest.approx((monte_carlo - values[row, t]).item(), abs=1e-5)
    assert advantages[1, 3:].tolist() == [0, 0]
    assert returns[1, 3:].tolist() == [0, 0]


def test_gae_lambda_zero_is_the_one_step_error() -> None:
    advantages, _ = gae(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[0.5, 0.25]]),
        torch.ones(1, 2).bool(),
        discount=0.5,
        gae_lambda=0.0,
    )
    assert advantages.tolist() == [[1.0 + 0.5 * 0.25 - 0.5, 2.0 - 0.25]]


def test_gae_of_a_perfect_critic_is_zero() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    advantages, _ = gae(rewards, torch.tensor([[6.0, 5.0, 3.0]]), torch.ones(1, 3).bool(), gae_lambda=0.9)
    torch.testing.assert_close(advantages, torch.zeros(1, 3))


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 5), padding=st.integers(0, 4), gae_lambda=st.floats(0, 1))
def test_gae_does_not_see_the_padding(length: int, padding: int, gae_lambda: float) -> None:
    generator = torch.Generator().manual_seed(length)
    rewards, values = torch.randn(1, length, generator=generator), torch.randn(1, length, generator=generator)
    bare, _ = gae(rewards, values, torch.ones(1, length).bool(), gae_lambda=gae_lambda)
    junk = torch.full((1, padding), 1e9)
    mask = torch.tensor([[True] * length + [False] * padding])
    padded, _ = gae(torch.cat([rewards, junk], 1), torch.cat([values, junk], 1), mask, gae_lambda=gae_lambda)
    torch.testing.assert_close(padded[:, :length], bare)
