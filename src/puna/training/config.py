"""Settings of the training loop; the defaults are Llama 2's pretraining (§2.2)."""

from typing import Literal

from pydantic import Field, model_validator

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.training.optimizer import OptimizerConfig
from puna.training.schedule import constant_lr, cosine_lr
from puna.training.spikes import SpikeConfig

__all__ = ["LoopConfig"]


class LoopConfig(Settings):
    """How many updates, of what size, at which learning rate; and how often to log, measure and save."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW (§2.2)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Shape of the learning rate after warm-up (§2.2 cosine; §3.2.3 constant for PPO)."""
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    """Last learning rate as a share of the peak, cosine only (§2.2)."""
    total_steps: int | None = Field(default=None, gt=0)
    """Updates; None lets the stage derive them from its epochs or tokens."""
    warmup_steps: int = Field(default=2000, ge=0)
    """Updates of linear warm-up (§2.2); at least this many where a fraction is given too."""
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Warm-up as a share of all updates (reward models: 0.03, at least 5 updates, §3.2.2)."""
    batch_size: int = Field(default=1024, gt=0)
    """Rows, or pairs for reward models, per update (§2.2: 4M tokens, here 1,024 rows of 4,096)."""
    micro_batch_size: int = Field(default=8, gt=0)
    """Rows or pairs per forward pass, for memory only: gradients weigh every target alike."""
    dtype: Literal["float32", "bfloat16", "float8"] = "float32"
    """Precision of matrix products; bfloat16 is autocast over float32 weights, float8 the same with 8-bit products in
    the blocks (7B and above, on newer GPUs). Our choice: the paper is silent."""
    log_every_steps: int = Field(default=10, gt=0)
    """Updates per line of metrics; the loss written is the mean over them."""
    evaluate_every_steps: int | None = Field(default=None, gt=0)
    """Updates between held-out measurements; None measures once, at the end."""
    checkpoint_every_steps: int = Field(default=500, gt=0)
    """Updates between training states: at most this much work is done twice after a kill."""
    spikes: SpikeConfig = SpikeConfig()
    """Losses too high to be true."""

    @model_validator(mode="after")
    def _check(self) -> "LoopConfig":
        if self.total_steps is not None and self.warmup_steps > self.total_steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} is more than total_steps = {self.total_steps}: lower it"
            )
        return self

    def for_steps(self, total_steps: int) -> "LoopConfig":
        """The same settings with this many updates, where none were set.

        Raises:
            ConfigError: warm-up would be longer than the training.
        """
        if self.total_steps is not None:
            return self
        if self.warmup_steps > total_steps:
            raise ConfigError(
                where="warmup_steps",
                expected=f"at most the {total_steps} updates that the data and epochs give",
                got=str(self.warmup_steps),
                fix="Lower warmup_steps or train longer.",
            )
        return self.model_copy(update={"total_steps": total_steps})

    @property
    def n_steps(self) -> int:
        """Updates of this training.

        Raises:
            ConfigError: neither the recipe nor the stage said.
        """
        if self.total_steps is None:
            raise ConfigError(
                where="total_steps", expected="a number of updates", got="none", fix="Set total_steps."
            )
        return self.total_steps

    @property
    def n_warmup_steps(self) -> int:
        """Updates of warm-up: the fraction, rounded, or the number, whichever is more."""
        return max(self.warmup_steps, round(self.warmup_fraction * self.n_steps))

    def lr(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        peak_lr, warmup_steps = self.optimizer.peak_lr, self.n_warmup_steps
        if self.schedule == "constant":
            return constant_lr(step, peak_lr=peak_lr, warmup_steps=warmup_steps)
        return cosine_lr(
            step,
            peak_lr=peak_lr,
            warmup_steps=warmup_steps,
            total_steps=self.n_steps,
            final_fraction=self.final_lr_fraction,
        )
