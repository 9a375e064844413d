"""Pretraining (§2): next-token prediction on the token shards that pretraining data yields."""

from puna.pretraining.config import PretrainingConfig
from puna.pretraining.stage import pretrain

__all__ = ["PretrainingConfig", "pretrain"]
