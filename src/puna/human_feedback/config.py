"""Settings of preference collection."""

from pydantic import Field, model_validator

from puna.core.config import Settings

__all__ = ["PreferencesConfig"]


class PreferencesConfig(Settings):
    """How pairs are sampled and which are kept for testing."""

    n_pairs_per_prompt: int = Field(default=1, ge=1)
    """Pairs per prompt; §3.2.1 prefers many prompts to many pairs, hence one."""
    temperatures: tuple[float, ...] = (0.8, 1.1)
    """Temperatures to draw from, for each side. §3.2.1 says varied; the values are our choice."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling; the paper is silent, so none is cut off."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response, in tokens. Our choice."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of prompts whose pairs only test; the paper keeps 1,000 pairs of each batch (§3.2.2)."""
    double_annotated_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of pairs that a second annotator judges too, to measure agreement. Our choice."""
    max_batch_size: int = Field(default=256, ge=1)
    """Responses sampled at once, for memory and speed only."""

    @model_validator(mode="after")
    def _check(self) -> "PreferencesConfig":
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError("temperatures must be positive: at 0 both sides would say the same")
        return self
