"""Iterative RLHF (§3.2.3): rejection sampling and PPO against the two reward models."""

from puna.rlhf.ppo import PPOConfig, train_ppo
from puna.rlhf.ppo_config import EarlyStoppingConfig
from puna.rlhf.rejection_sampling import RejectionSamplingConfig, sample_candidates
from puna.rlhf.rewards import RewardConfig, ScoreConfig

__all__ = [
    "EarlyStoppingConfig",
    "PPOConfig",
    "RejectionSamplingConfig",
    "RewardConfig",
    "ScoreConfig",
    "sample_candidates",
    "train_ppo",
]
