"""One iteration's gradient steps: each mini-batch once, policy and critic together (§3.2.3)."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn

from puna.core.errors import NumericsError
from puna.core.machine import SpeedConfig
from puna.rlhf.experience import Experience, PPOModels
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.ppo_loss import policy_loss, value_loss
from puna.rlhf.rollout import response_logprobs, response_values
from puna.training.optimizer import OptimizerConfig, average_and_clip_gradients, make_optimizer
from puna.training.precision import precision
from puna.training.speed import faster_blocks

__all__ = ["joint_optimizer", "update"]

VALUE_CLIP = 0.2
"""Distance that the clipped value loss allows, as the policy's. Our choice: the paper states no critic."""


def joint_optimizer(models: PPOModels, config: PPOConfig) -> torch.optim.AdamW:
    """One AdamW whose parameter groups keep the policy's and the critic's own settings, so one state is saved."""
    policy = make_optimizer(models.policy, config.policy_optimizer)
    critic = make_optimizer(models.critic, config.critic_optimizer)
    return torch.optim.AdamW([*policy.param_groups, *critic.param_groups], fused=True)


def update(
    models: PPOModels,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: PPOConfig,
    *,
    order: Int[Tensor, " batch"],
    iteration: int,
    speed: SpeedConfig | None = None,
) -> dict[str, float]:
    """Take one gradient step per mini-batch and return token means over the iteration.

    The engine is refreshed: it samples from the new policy from now on.

    Args:
        order: A permutation of the rows; mini-batches are its consecutive parts.
        speed: How a step is computed; None is the default.
    Raises:
        NumericsError: a loss or gradient is not finite; that step is not taken.
    """
    speed = speed or SpeedConfig()
    with faster_blocks(models.policy, speed), faster_blocks(models.critic, speed):
        steps = [
            _mini_batch_step(models, optimizer, experience.rows(rows), config, iteration=iteration)
            for rows in order.split(config.mini_batch_size)
        ]
    models.engine.refresh()
    n_tokens = sum(step["n_tokens"] for step in steps)
    sums = ("policy_loss", "value_loss", "clip_fraction", "approx_kl")
    metrics = {name: sum(step[name] for step in steps) / n_tokens for name in sums}
    norms = ("policy_grad_norm", "critic_grad_norm")
    return metrics | {name: sum(step[name] for step in steps) / len(steps) for name in norms}


def _mini_batch_step(
    models: PPOModels,
    optimizer: torch.optim.Optimizer,
    batch: Experience,
    config: PPOConfig,
    *,
    iteration: int,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    n_tokens = int(batch.rollout.mask.sum())
    sums = torch.zeros(4, device=models.device)
    for part in _micro_batches(batch, config.micro_batch_size):
        sums += _backward(models, part, config)
    norms = [
        _average_and_clip(model, n_tokens, settings)
        for model, settings in (
            (models.policy, config.policy_optimizer),
            (models.critic, config.critic_optimizer),
        )
    ]
    numbers = [*sums.tolist(), *norms]
    if not all(math.isfinite(number) for number in numbers):
        raise NumericsError(
            where=f"PPO iteration {iteration}",
            expected="finite losses and gradients",
            got=f"sums and gradient norms {numbers}",
            fix="Lower the learning rates; the step was not taken and the last checkpoint is whole.",
        )
    optimizer.step()
    names = (
        "policy_loss",
        "value_loss",
        "clip_fraction",
        "approx_kl",
        "policy_grad_norm",
        "critic_grad_norm",
    )
    return dict(zip(names, numbers, strict=True)) | {"n_tokens": n_tokens}


def _micro_batches(batch: Experience, n_rows: int) -> Iterator[Experience]:
    """Parts of similar length; gradients are summed, so the cut changes speed and memory only."""
    lengths = batch.rollout.prompt_lengths + batch.rollout.response_lengths
    for rows in lengths.argsort(stable=True).split(n_rows):
        yield batch.rows(rows)


def _backward(models: PPOModels, part: Experience, config: PPOConfig) -> Tensor:
    """Add the part's summed gradients; returns its sums of losses, clipped tokens and KL."""
    mask = part.rollout.mask
    with precision(models.policy, config.dtype):
        logprobs = response_logprobs(models.policy, part.rollout)
        values = response_values(models.critic, part.rollout)
    policy = policy_loss(logprobs, part.old_logprobs, part.advantages, mask, clip=config.clip)
    critic = value_loss(values, part.old_values, part.returns, mask, clip=VALUE_CLIP)
    (policy.loss + critic).backward()
    return torch.stack([policy.loss.detach(), critic.detach(), policy.n_clipped.float(), policy.approx_kl])


def _average_and_clip(model: nn.Module, n_tokens: int, config: OptimizerConfig) -> float:
    return float(
        average_and_clip_gradients(model.parameters(), n_targets=n_tokens, max_norm=config.max_grad_norm)
    )
