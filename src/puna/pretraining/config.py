"""Settings of pretraining; the defaults are the 7B model's of Llama 2 (§2.2, Table 1)."""

from typing import Literal

from pydantic import Field

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.model.config import ModelConfig, preset
from puna.training.config import LoopConfig

__all__ = ["PretrainingConfig"]


class PretrainingConfig(Settings):
    """What is trained, on how many tokens, in which rows."""

    model: Literal["nano", "7b", "13b", "34b", "70b"] | ModelConfig = "7b"
    """A preset's name, its vocabulary then being the tokenizer's; or every size written out."""
    seq_len: int = Field(default=4096, gt=0)
    """Tokens per training row, at most the model's context (Table 1)."""
    total_tokens: int = Field(default=2_000_000_000_000, gt=0)
    """Tokens to train on, repeats included (Table 1); loop.total_steps overrides it."""
    isolate_documents: bool = False
    """Hide the documents of a row from one another. The paper is silent; off is our choice."""
    validation_tokens: int = Field(default=65_536, gt=1)
    """Held-out tokens per source in each measurement, from the start of its shard. Our choice."""
    loop: LoopConfig = LoopConfig()
    """Optimizer, schedule, batch and bookkeeping."""

    def model_config_for(self, vocab_size: int) -> ModelConfig:
        """The model's sizes with this tokenizer.

        Raises:
            ConfigError: the vocabulary is not the tokenizer's, or rows are longer than the context.
        """
        model = preset(self.model, vocab_size=vocab_size) if isinstance(self.model, str) else self.model
        if model.vocab_size != vocab_size:
            raise ConfigError(
                where="pretraining.model.vocab_size",
                expected=f"the tokenizer's {vocab_size}",
                got=str(model.vocab_size),
                fix="Correct it, or give the tokenizer this model is meant for.",
            )
        if self.seq_len > model.max_seq_len:
            raise ConfigError(
                where="pretraining.seq_len",
                expected=f"at most the model's context of {model.max_seq_len} tokens",
                got=str(self.seq_len),
                fix="Lower seq_len or raise the model's max_seq_len.",
            )
        return model

    def loop_for(self) -> LoopConfig:
        """The loop with as many updates as total_tokens fill, unless it names its own number."""
        return self.loop.for_steps(-(-self.total_tokens // (self.loop.batch_size * self.seq_len)))
