"""Settings of supervised fine-tuning; the defaults are Llama 2's (§3.1)."""

from pydantic import Field

from puna.core.config import Settings
from puna.training.config import LoopConfig
from puna.training.optimizer import OptimizerConfig

__all__ = ["FinetuningConfig", "FinetuningLoopConfig", "FinetuningOptimizerConfig"]


class FinetuningOptimizerConfig(OptimizerConfig):
    """AdamW as in pretraining, which §3.1 does not restate, at the lower rate it does state."""

    peak_lr: float = Field(default=2e-5, gt=0)
    """Highest learning rate (§3.1)."""


class FinetuningLoopConfig(LoopConfig):
    """Cosine schedule as in §3.1, with its floor, which is not stated there, as in §2.2."""

    optimizer: FinetuningOptimizerConfig = FinetuningOptimizerConfig()
    """AdamW (§3.1)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Updates of linear warm-up; none is our choice, §3.1 is silent."""
    batch_size: int = Field(default=64, gt=0)
    """Packed rows per update (§3.1)."""
    micro_batch_size: int = Field(default=1, gt=0)
    """Rows per forward pass, for memory only."""


class FinetuningConfig(Settings):
    """Which dialogs count how often, and how long they are learned."""

    seq_len: int = Field(default=4096, gt=0)
    """Tokens per packed row (§3.1); a longer dialog is dropped and counted."""
    n_epochs: float = Field(default=2.0, gt=0)
    """Passes over the packed rows (§3.1); loop.total_steps, where given, overrides it, as §3.2.3
    gives every RLHF version the same number of steps; without it, more dialogs mean more steps."""
    repeats: tuple[float, ...] = ()
    """How often each input's dialogs occur in an epoch, one number per input; a fraction takes a seeded share.
    Empty is once each. Our choice: the paper states no weights."""
    validation_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of dialogs held out to measure the loss, chosen by content, so equal dialogs stay together. Our choice."""
    loop: FinetuningLoopConfig = FinetuningLoopConfig()
    """Optimizer, schedule, batch and bookkeeping."""
