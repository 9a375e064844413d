"""Supervised fine-tuning (§3.1): dialogs in, a chat model out."""

from puna.supervised_finetuning.config import FinetuningConfig
from puna.supervised_finetuning.stage import finetune

__all__ = ["FinetuningConfig", "finetune"]
