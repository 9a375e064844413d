"""Generalised advantage estimation over response tokens; the paper names no estimator, so lambda is a setting."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["gae"]


def gae(
    rewards: Float[Tensor, "batch response"],
    values: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    discount: float = 1.0,
    gae_lambda: float = 1.0,
) -> tuple[Float[Tensor, "batch response"], Float[Tensor, "batch response"]]:
    """Advantages and the returns that the critic learns.

    Source: Schulman et al. 2016, Eq. 16: A_t = sum_k (gamma lambda)^k delta_{t+k},
    delta_t = r_t + gamma V(s_{t+1}) - V(s_t). With lambda 1 the returns are the Monte-Carlo returns.

    Args:
        rewards: Zero outside the mask is not required: the mask decides.
        values: V(s_t) before token t is chosen; the value after the last masked token is 0.
        mask: The response's tokens, a prefix of each row.
    Returns:
        (advantages, advantages + values), both zero outside the mask.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for step in reversed(range(rewards.shape[1])):
        delta = rewards[:, step] + discount * next_value - values[:, step]
        running = (delta + discount * gae_lambda * running) * mask[:, step]
        advantages[:, step] = running
        next_value = values[:, step]
    return advantages, advantages + values
