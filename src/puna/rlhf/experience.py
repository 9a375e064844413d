"""What one iteration learns from: responses, their rewards and advantages, all fixed before the first update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.core.records import RewardRole
from puna.inference import Completion, Engine
from puna.inference.reward_models import RewardModels
from puna.model import ScoreModel, Transformer
from puna.rlhf.advantages import gae
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.prompts import EncodedPrompt, is_safety
from puna.rlhf.rewards import (
    ScoreConfig,
    composite_score,
    token_rewards,
    whiten,
    whiten_in_scope,
    without_eos,
)
from puna.rlhf.rollout import Rollout, by_length, lay_out, response_logprobs, response_values

__all__ = ["Experience", "Judged", "PPOModels", "judge", "learn_from"]


@dataclass(frozen=True, kw_only=True)
class PPOModels:
    """The five models of PPO; only policy and critic change."""

    policy: Transformer
    reference: Transformer
    """pi_0, the policy that PPO started from."""
    critic: ScoreModel
    reward_models: RewardModels
    engine: Engine
    """Samples from the policy's own weights."""

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.policy.norm.weight.device


class Judged(NamedTuple):
    """Responses with what the frozen models and the policy that sampled them say."""

    rollout: Rollout
    scores: Float[Tensor, " batch"]
    """logit(R_c), a missing eos counted in."""
    logprobs: Float[Tensor, "batch response"]
    kl: Float[Tensor, "batch response"]
    """log pi_theta - log pi_0 of each sampled token, in nats."""
    metrics: dict[str, float]


class Experience(NamedTuple):
    """One iteration's targets."""

    rollout: Rollout
    old_logprobs: Float[Tensor, "batch response"]
    old_values: Float[Tensor, "batch response"]
    advantages: Float[Tensor, "batch response"]
    returns: Float[Tensor, "batch response"]

    def rows(self, index: Int[Tensor, " row"]) -> "Experience":
        """Some of the rows, trimmed to the longest of them."""
        rollout = self.rollout.rows(index)
        n_response = rollout.mask.shape[1]
        return Experience(rollout, *(values[index, :n_response] for values in self[1:]))


@torch.no_grad()
def judge(
    models: PPOModels,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    config: ScoreConfig,
    *,
    n_rows: int,
) -> Judged:
    """Score responses by both reward models, and measure how far the policy has moved on them."""
    token_ids = [prompt.token_ids for prompt in prompts]
    rollout = lay_out(token_ids, completions, device=models.device)
    logits = models.reward_models.score(token_ids, completions, max_batch_size=n_rows)
    by_role = {role: torch.tensor(values, device=models.device) for role, values in logits.items()}
    tagged = is_safety(prompts).to(models.device)
    raw = composite_score(
        by_role["helpfulness"], by_role["safety"], tagged, threshold=config.safety_threshold
    )
    logprobs = by_length(rollout, n_rows, lambda part: response_logprobs(models.policy, part))
    kl = logprobs - by_length(rollout, n_rows, lambda part: response_logprobs(models.reference, part))
    return Judged(
        rollout=rollout,
        scores=without_eos(raw, rollout.is_finished, config),
        logprobs=logprobs,
        kl=kl,
        metrics=_response_metrics(rollout, logprobs, kl) | _score_metrics(by_role, raw, tagged),
    )


@torch.no_grad()
def learn_from(models: PPOModels, judged: Judged, tagged: Tensor, config: PPOConfig) -> Experience:
    """Rewards, values and advantages of judged responses (§3.2.3)."""
    rollout, reward = judged.rollout, config.reward
    scores = whiten_in_scope(judged.scores, tagged.to(models.device), reward)
    rewards = token_rewards(scores, judged.kl, rollout.mask, kl_coef=reward.kl_coef)
    values = by_length(rollout, config.micro_batch_size, lambda part: response_values(models.critic, part))
    advantages, returns = gae(
        rewards, values, rollout.mask, discount=config.discount, gae_lambda=config.gae_lambda
    )
    if config.whiten_advantages:
        advantages = whiten(advantages, rollout.mask)
    return Experience(rollout, judged.logprobs, values, advantages, returns)


def _response_metrics(rollout: Rollout, logprobs: Tensor, kl: Tensor) -> dict[str, float]:
    drift = (logprobs - rollout.sampler_logprobs).abs()[rollout.mask]
    return {
        "kl": float(kl.sum(dim=1).mean()),
        "entropy": float(-logprobs[rollout.mask].mean()),
        "response_tokens": float(rollout.response_lengths.float().mean()),
        "eos_rate": float(rollout.is_finished.float().mean()),
        "logprob_drift": float(drift.mean()),
    }


def _score_metrics(
    by_role: Mapping[RewardRole, Tensor], composite: Tensor, tagged: Tensor
) -> dict[str, float]:
    """Means in logits; of tagged and of other prompts too, where the batch holds such."""
    metrics = {"score": float(composite.mean())}
    metrics |= {f"score_{role}": float(values.mean()) for role, values in by_role.items()}
    for name, rows in (("helpfulness", ~tagged), ("safety", tagged)):
        if rows.any():
            metrics[f"score_on_{name}_prompts"] = float(composite[rows].mean())
    return metrics
