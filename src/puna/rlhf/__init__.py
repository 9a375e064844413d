"""Iterative RLHF (§3.2.3): rejection sampling and PPO against the two reward models."""

from puna.rlhf.ppo import PPOConfig, train_ppo
from puna.rlhf.ppo_config import EarlyStoppingConfig
from puna.rlhf.rejection_sampling import RejectionSamplingConfig, sample_candidates
from puna.rlhf.rewards import RewardConfig, ScoreConfig
from puna.rlhf.versions import SCHEDULE, Version

__all__ = [
    "SCHEDULE",
    "EarlyStoppingConfig",
    "PPOConfig",
    "RejectionSamplingConfig",
    "RewardConfig",
    "ScoreConfig",
    "Version",
    "sample_candidates",
    "train_ppo",
]
