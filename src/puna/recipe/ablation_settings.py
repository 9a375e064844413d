"""Settings of an ablation (App. A.2.1): the same text for every variant, and what each variant changes."""

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from puna.core.config import Settings, changed
from puna.core.errors import ConfigError
from puna.core.machine import Machine
from puna.core.validation import settings_error
from puna.evaluation.decoding import DecodingConfig
from puna.evaluation.text import TextEvaluationConfig
from puna.pretraining.config import PretrainingConfig
from puna.pretraining_data.shards import ShardConfig
from puna.pretraining_data.stage import DataConfig
from puna.tokenizer.train import TokenizerConfig

__all__ = ["AblationRecipe"]


class AblationRecipe(Settings):
    """One comparison; recipes that share data, tokenizer and shards can share a run folder."""

    title: str = "Ablations"
    """Heading of the report."""
    machine: Machine = Machine()
    """Where it runs; no part of what is learned."""
    compares: Literal["context", "attention", "size"]
    """Which of the paper's tables the report lays out: 16 and 17, 18 and Figure 24, or Figure 5."""
    data: DataConfig = DataConfig()
    """Sources and cleaning (§2.1)."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """SentencePiece BPE (§2.2.1)."""
    shards: ShardConfig = ShardConfig()
    """Token files."""
    pretraining: PretrainingConfig
    """What the variants share."""
    variants: dict[str, dict[str, Any]]
    """Name -> the settings of `pretraining` that are its own, merged key by key."""
    text: TextEvaluationConfig | None = None
    """Measurements on held-out text; None leaves them out."""
    short_text: TextEvaluationConfig | None = None
    """The same on stretches that fit the shortest context (Table 17); None leaves them out."""
    decoding: DecodingConfig | None = None
    """Decoding speed by batch size (Figure 24); None leaves it out."""
    evaluation_dtype: Literal["float32", "bfloat16"] = Field(default="float32")
    """Precision of the measurements on text."""

    @model_validator(mode="after")
    def _variants_make_sense(self) -> "AblationRecipe":
        if len(self.variants) < 2:
            raise ConfigError(
                where="variants",
                expected="at least two variants to compare",
                got=", ".join(self.variants) or "none",
                fix="Add a [variants.NAME] section for each.",
            )
        for name in self.variants:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ConfigError(
                    where="variants",
                    expected="names that do for a folder: letters, digits, dot, dash and underscore",
                    got=repr(name),
                    fix="Rename this variant.",
                )
            self.pretraining_of(name)
        return self

    def pretraining_of(self, variant: str) -> PretrainingConfig:
        """The settings that a variant is trained with.

        Raises:
            ConfigError: the variant changes something that is no setting, or to a value that is none.
        """
        try:
            return changed(self.pretraining, self.variants[variant])
        except ValidationError as error:
            raise settings_error(error, PretrainingConfig, lambda key: f"variants.{variant}.{key}") from None
