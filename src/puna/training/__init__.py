"""Losses, optimizer, schedule, packing, the one training loop and its exact resumption."""

from puna.training.config import LoopConfig
from puna.training.loop import run
from puna.training.losses import next_token_loss
from puna.training.optimizer import OptimizerConfig, make_optimizer
from puna.training.order import ShuffledOrder
from puna.training.packing import PackedRows, TokenizedExample, pack
from puna.training.resume import load_state, save_state
from puna.training.task import LossSum, TrainingTask

__all__ = [
    "LoopConfig",
    "LossSum",
    "OptimizerConfig",
    "PackedRows",
    "ShuffledOrder",
    "TokenizedExample",
    "TrainingTask",
    "load_state",
    "make_optimizer",
    "next_token_loss",
    "pack",
    "run",
    "save_state",
]
