"""Settings of a reward model; the defaults are Llama 2's (§3.2.2) where it has any."""

from pydantic import Field

from puna.core.config import Settings
from puna.reward_modeling.margins import MarginScale
from puna.training import LoopConfig, OptimizerConfig

__all__ = ["RewardLoopConfig", "RewardModelConfig", "RewardOptimizerConfig"]


class RewardOptimizerConfig(OptimizerConfig):
    """AdamW as in pretraining (§3.2.2), at the reward model's rate."""

    peak_lr: float = Field(default=1e-5, gt=0)
    """Highest learning rate (§3.2.2; 5e-6 for 70B)."""


class RewardLoopConfig(LoopConfig):
    """Cosine to a tenth, short warm-up, 512 pairs an update (§3.2.2)."""

    optimizer: RewardOptimizerConfig = RewardOptimizerConfig()
    """AdamW (§3.2.2)."""
    warmup_steps: int = Field(default=5, ge=0)
    """Fewest updates of warm-up (§3.2.2)."""
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1)
    """Warm-up as a share of all updates (§3.2.2)."""
    batch_size: int = Field(default=512, gt=0)
    """Pairs per update, 1,024 rows (§3.2.2)."""
    micro_batch_size: int = Field(default=16, gt=0)
    """Pairs per forward pass, both sides together; for memory and speed only."""


class RewardModelConfig(Settings):
    """What a reward model learns from, and with which loss."""

    margin: MarginScale = "small"
    """Scale of m(r) in Eq. 2 (Table 27). Which one the final models used is not stated; small is our choice: Table 28
    has both alike, and the large one drives scores to the extremes, of which §A.3.3 warns for PPO."""
    safety_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the auxiliary loss on safety labels, safety role only. Neither its form nor its weight is printed
    (§3.2.2, Table 29 shows its effect): our choice."""
    own_fraction: float | None = Field(default=None, gt=0, le=1)
    """Share of the role's own guideline in the training pairs; None takes 0.5 for helpfulness and 0.9 for safety
    (§3.2.2). Where other pairs are too few, all of them are used."""
    n_epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs; §3.2.2 found more to over-fit. loop.total_steps, where given, overrides it."""
    max_seq_len: int | None = Field(default=None, gt=1)
    """Pairs with a longer side, in tokens, are dropped and counted; None is the model's context."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of prompts held out of inputs that are plain files; preference artifacts come divided."""
    loop: RewardLoopConfig = RewardLoopConfig()
    """Optimizer, schedule, batch and bookkeeping."""
