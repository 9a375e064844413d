"""Reward models (§3.2.2): comparisons in, a model that scores responses out."""

from puna.reward_modeling.accuracy import ScoredPair
from puna.reward_modeling.config import RewardModelConfig
from puna.reward_modeling.margins import MARGINS
from puna.reward_modeling.scoring import score_comparisons, score_file, score_samples
from puna.reward_modeling.stage import train_reward_model

__all__ = [
    "MARGINS",
    "RewardModelConfig",
    "ScoredPair",
    "score_comparisons",
    "score_file",
    "score_samples",
    "train_reward_model",
]
