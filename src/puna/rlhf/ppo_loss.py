"""The clipped surrogate and the clipped value loss of PPO (§3.2.3; Schulman et al. 2017, Eq. 7)."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["PolicyLoss", "policy_loss", "value_loss"]


class PolicyLoss(NamedTuple):
    """Sums over the masked tokens: divide by the mini-batch's token count, so that splitting it changes nothing."""

    loss: Tensor
    n_clipped: Tensor
    """Tokens whose gradient the clip removed."""
    approx_kl: Tensor
    """KL(old || new) in nats by (ratio - 1) - log ratio, which is never negative."""


def policy_loss(
    logprobs: Float[Tensor, "batch response"],
    old_logprobs: Float[Tensor, "batch response"],
    advantages: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    clip: float,
) -> PolicyLoss:
    """-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A), summed over masked tokens.

    Source: Schulman et al. 2017, Eq. 7; eps is 0.2 in Llama 2 §3.2.3.
    """
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    ratio = log_ratio.exp()
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -plain.minimum(clipped).masked_fill(~mask, 0.0)
    is_clipped = (clipped < plain) & mask
    kl = (ratio.detach() - 1) - log_ratio.detach()
    return PolicyLoss(loss=loss.sum(), n_clipped=is_clipped.sum(), approx_kl=kl.sum())


def value_loss(
    values: Float[Tensor, "batch response"],
    old_values: Float[Tensor, "batch response"],
    returns: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    clip: float,
) -> Float[Tensor, ""]:
    """Half the squared error, the worse of the value and the value held near its old one; summed over tokens.

    Source: the released PPO of Schulman et al. 2017; Llama 2 states no critic, so this is our choice.
    """
    held = old_values + (values - old_values).clamp(-clip, clip)
    error = (values - returns).square().maximum((held - returns).square())
    return 0.5 * error.masked_fill(~mask, 0.0).sum()
