"""What a response is worth: the composite score R_c, its whitening, and the KL penalty (§3.2.3, Eq. 4)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from puna.core.config import Settings

__all__ = [
    "RewardConfig",
    "ScoreConfig",
    "composite_score",
    "token_rewards",
    "whiten",
    "whiten_in_scope",
    "without_eos",
]


class ScoreConfig(Settings):
    """How two reward-model scores become one; the same for PPO and for ranking rejection samples (our choice)."""

    safety_threshold: float = Field(default=0.15, ge=0, le=1)
    """Safety probability under which a response is judged by safety alone (§3.2.3)."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Logits taken from the score of a response cut by length; 0 leaves it. Our choice."""
    missing_eos_score: float | None = None
    """Logits that replace such a score altogether. Our choice."""


class RewardConfig(ScoreConfig):
    """How a composite score and a KL become a reward."""

    kl_coef: float = Field(default=0.01, ge=0)
    """Beta: 0.01 for 7B and 13B, 0.005 for 34B and 70B (§3.2.3)."""
    whiten_scope: Literal["batch", "is_safety", "none"] = "batch"
    """Which scores share one mean and spread: all; those of prompts with the is_safety tag, and those of the others; or
    no whitening. Our choice."""


def composite_score(
    helpfulness: Float[Tensor, " batch"],
    safety: Float[Tensor, " batch"],
    is_safety: Bool[Tensor, " batch"],
    *,
    threshold: float,
) -> Float[Tensor, " batch"]:
    """logit(R_c): the safety score if the prompt is tagged or the response looks unsafe, else helpfulness.

    Source: Llama 2 §3.2.3, R_c = R_s if is_safety(p) or R_s < 0.15, else R_h; R_s and R_h are probabilities.

    Args:
        helpfulness: Reward-model output in logits.
        safety: Reward-model output in logits; only its comparison with the threshold is in probabilities.
        is_safety: The prompt is tagged as likely to draw unsafe answers.
        threshold: A probability.
    Returns:
        Logits. The reward models speak logits, so the paper's logit(sigmoid(x)) is never rounded through.
    """
    return torch.where(is_safety | (safety.sigmoid() < threshold), safety, helpfulness)


def without_eos(
    scores: Float[Tensor, " batch"], is_finished: Bool[Tensor, " batch"], config: ScoreConfig
) -> Float[Tensor, " batch"]:
    """Mark down responses that the length limit cut; the paper is silent, so the settings say how."""
    if config.missing_eos_score is not None:
        cut = torch.full_like(scores, config.missing_eos_score)
    else:
        cut = scores - config.missing_eos_penalty
    return torch.where(is_finished, scores, cut)


def whiten(
    values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, eps: float = 1e-6
) -> Float[Tensor, "*shape"]:
    """Zero mean and unit variance over the masked entries; the others become zero.

    Equal values give zeros: nothing to learn, not an infinity. Variance is the population's.
    """
    weight = mask.to(values.dtype)
    n_values = weight.sum().clamp(min=1)
    centered = (values - (values * weight).sum() / n_values) * weight
    return centered / ((centered**2).sum() / n_values + eps).sqrt()


def whiten_in_scope(
    scores: Float[Tensor, " batch"], is_safety: Bool[Tensor, " batch"], config: RewardConfig
) -> Float[Tensor, " batch"]:
    """Whiten over the scope that the settings name."""
    if config.whiten_scope == "none":
        return scores
    if config.whiten_scope == "batch":
        return whiten(scores, torch.ones_like(is_safety))
    return whiten(scores, is_safety) + whiten(scores, ~is_safety)


def token_rewards(
    scores: Float[Tensor, " batch"],
    kl: Float[Tensor, "batch response"],
    mask: Bool[Tensor, "batch response"],
    *,
    kl_coef: float,
) -> Float[Tensor, "batch response"]:
    """R = R~_c - beta * KL laid over the response's tokens; each row sums to the paper's R (§3.2.3).

    The penalty is paid at the token it is of. Our choice: the paper does not say where.

    Args:
        scores: Whitened scores, paid at the last masked token of each row.
        kl: log pi_theta - log pi_0 of each sampled token, in nats: an estimate that may be negative, never clamped.
        mask: The response's tokens, a prefix of each row.
    """
    n_tokens = mask.sum(dim=1)
    is_last = torch.arange(mask.shape[1], device=mask.device) == (n_tokens - 1)[:, None]
    return scores[:, None] * is_last - kl_coef * kl * mask
