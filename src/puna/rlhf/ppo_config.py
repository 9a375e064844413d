"""Settings of PPO; the defaults are §3.2.3's."""

from typing import Literal

from pydantic import Field, model_validator

from puna.core.config import Settings
from puna.rlhf.rewards import RewardConfig
from puna.training.optimizer import OptimizerConfig

__all__ = ["EarlyStoppingConfig", "PPOConfig"]


class EarlyStoppingConfig(Settings):
    """Stopping on held-out prompts; the paper says that it did, not by which rule, so the rule is our choice."""

    evaluate_every_iterations: int = Field(default=10, ge=1)
    """Iterations between evaluations; iteration 0, the starting policy, is always one."""
    patience: int = Field(default=5, ge=1)
    """Evaluations in a row without a new best that end the run."""
    max_prompts: int = Field(default=512, ge=1)
    """Held-out prompts sampled at each evaluation, with the same seeds every time."""


class PPOConfig(Settings):
    """PPO from a starting policy pi_0 (§3.2.3)."""

    max_iterations: int = Field(default=400, ge=0)
    """Between 200 and 400 in the paper (§3.2.3)."""
    batch_size: int = Field(default=512, ge=1)
    """Prompts, with one response each, an iteration (§3.2.3)."""
    mini_batch_size: int = Field(default=64, ge=1)
    """Responses a gradient step; each mini-batch is used once (§3.2.3)."""
    micro_batch_size: int = Field(default=16, ge=1)
    """Responses in memory at once: speed and memory only, the gradient is the mini-batch's."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response. Not stated in the paper: our choice."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """Epsilon of the clipped objective (§3.2.3)."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Gamma. Our choice: a response is one episode."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Lambda of the advantage estimate; 1 is Monte Carlo. Our choice."""
    whiten_advantages: bool = True
    """Zero mean and unit variance over the batch's tokens. Our choice."""
    reward: RewardConfig = RewardConfig()
    """The composite reward and its KL penalty."""
    policy_optimizer: OptimizerConfig = OptimizerConfig(peak_lr=1e-6)
    """AdamW at a constant learning rate of 1e-6 (§3.2.3)."""
    critic_optimizer: OptimizerConfig = OptimizerConfig(peak_lr=1e-6)
    """The same for the critic, whose rate the paper does not state."""
    critic_init: Literal["reward_model", "policy"] = "reward_model"
    """Whose trunk the critic takes, the helpfulness reward model's or the policy's; its head is new. Our choice."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When to stop, and which policy is kept."""
    checkpoint_every_iterations: int = Field(default=10, ge=1)
    """Iterations that a kill can cost."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products in training (autocast); weights and losses stay float32."""

    @model_validator(mode="after")
    def _batches_divide(self) -> "PPOConfig":
        if self.batch_size % self.mini_batch_size:
            raise ValueError(f"batch_size must be a multiple of mini_batch_size {self.mini_batch_size}")
        return self
