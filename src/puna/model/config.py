"""The shape of a Llama 2 (§2.2): its sizes, the published presets, and the nano one of the quickstart."""

import difflib

from pydantic import Field, model_validator

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.model.rope_scaling import RopeScaling, YarnScaling

__all__ = ["PRESETS", "ModelConfig", "preset"]


class ModelConfig(Settings):
    """Sizes of one model; the names are those of Meta's code. Upper limits only stop what a damaged file asks for."""

    dim: int = Field(gt=0, le=2**20)
    """Width of the residual stream."""
    n_layers: int = Field(gt=0, le=1024)
    """Transformer blocks."""
    n_heads: int = Field(gt=0, le=2**14)
    """Query heads."""
    n_kv_heads: int = Field(gt=0)
    """Key and value heads; fewer than n_heads is grouped-query attention (§2.2, App. A.2.1)."""
    vocab_size: int = Field(gt=0, le=2**26)
    """Tokens the model can read and write."""
    hidden_dim: int = Field(gt=0, le=2**24)
    """Inner width of the SwiGLU feed-forward layer."""
    custom_head_dim: int | None = Field(default=None, gt=0, le=2**14)
    """Width of one head where it is not dim / n_heads, as it is in every Llama 2."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm; 1e-5 in Meta's published params.json."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies; 10,000 in Meta's code."""
    rope_scaling: RopeScaling | None = None
    """How a longer context was made from a shorter one; in no Llama 2."""
    max_seq_len: int = Field(default=4096, gt=0)
    """Context in tokens; Table 1."""
    tie_embeddings: bool = False
    """Output matrix = embedding matrix; untied in every Llama 2."""

    @model_validator(mode="after")
    def _check_heads(self) -> "ModelConfig":
        if self.dim % self.n_heads or self.head_dim % 2:
            raise ValueError(
                f"dim {self.dim} must be a multiple of n_heads {self.n_heads}, and heads of even width"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} must be a multiple of n_kv_heads {self.n_kv_heads}")
        return self

    @model_validator(mode="after")
    def _check_scaling(self) -> "ModelConfig":
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_theta <= 1:
            raise ValueError("YaRN scaling needs a rope_theta above 1")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.custom_head_dim or self.dim // self.n_heads

    @property
    def q_dim(self) -> int:
        """Width of all query heads together: dim, unless heads have a width of their own."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.n_kv_heads * self.head_dim


def _config(dim: int, n_layers: int, n_heads: int, n_kv_heads: int, hidden_dim: int) -> ModelConfig:
    return ModelConfig(
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        hidden_dim=hidden_dim,
        vocab_size=32_000,
    )


PRESETS: dict[str, ModelConfig] = {
    "nano": _config(128, 4, 4, 2, 352).model_copy(update={"vocab_size": 1024, "max_seq_len": 512}),
    "7b": _config(4096, 32, 32, 32, 11_008),
    "13b": _config(5120, 40, 40, 40, 13_824),
    "34b": _config(8192, 48, 64, 8, 22_016),
    "70b": _config(8192, 80, 64, 8, 28_672),
}
"""nano is ours, for a laptop. 7b, 13b and 70b follow Meta's params.json. Meta never released the 34b: its sizes
are those of Code Llama 34B, which was initialised from it; its base and context here are Llama 2's."""


def preset(name: str, *, vocab_size: int | None = None, max_seq_len: int | None = None) -> ModelConfig:
    """A named size, with the vocabulary or the context replaced where given.

    Raises:
        ConfigError: no preset has that name.
    """
    if name not in PRESETS:
        nearest = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.4)
        raise ConfigError(
            where="model preset",
            expected=f"one of {', '.join(PRESETS)}",
            got=repr(name),
            fix=f"Did you mean {nearest[0]!r}?" if nearest else "Choose one of these.",
        )
    given = {"vocab_size": vocab_size, "max_seq_len": max_seq_len}
    changes = {key: value for key, value in given.items() if value is not None}
    return ModelConfig.model_validate(PRESETS[name].model_dump() | changes)
