"""Rotary frequencies stretched to a longer context than a model was trained on, as config.json describes it.

Llama 2 itself scales nothing. Fixed NTK scaling has no form of its own in config.json: it is a larger rope_theta.
Every scaling here gives a position the same angles whatever the length of its text. Dynamic NTK scaling does not, and
is refused by hf_rope.py.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from puna.core.config import Settings

__all__ = ["LinearScaling", "Llama3Scaling", "RopeScaling", "YarnScaling", "frequencies"]

Positive = Annotated[float, Field(gt=0)]


class LinearScaling(Settings):
    """Positions divided by a factor (Chen et al. 2023, position interpolation)."""

    rope_type: Literal["linear"] = "linear"
    """The name of this scaling in config.json."""
    factor: Positive
    """Longer context / trained context."""


class Llama3Scaling(Settings):
    """Slow frequencies divided by a factor, fast ones kept, those between interpolated (Llama 3.1)."""

    rope_type: Literal["llama3"] = "llama3"
    """The name of this scaling in config.json."""
    factor: Positive
    """Divides the slow frequencies."""
    low_freq_factor: Positive
    """Turns in the trained context below which a frequency is slow."""
    high_freq_factor: Positive
    """Turns in the trained context above which a frequency is fast."""
    original_max_seq_len: int = Field(gt=0)
    """Trained context in tokens."""

    @model_validator(mode="after")
    def _check_order(self) -> "Llama3Scaling":
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(f"high_freq_factor {self.high_freq_factor} must be above low_freq_factor")
        return self


class YarnScaling(Settings):
    """Interpolation by frequency with a softer softmax (Peng et al. 2023, YaRN)."""

    rope_type: Literal["yarn"] = "yarn"
    """The name of this scaling in config.json."""
    factor: Positive
    """Longer context / trained context."""
    original_max_seq_len: int = Field(gt=0)
    """Trained context in tokens."""
    beta_fast: Positive = 32.0
    """Turns in the trained context from which a frequency is kept."""
    beta_slow: Positive = 1.0
    """Turns in the trained context up to which a frequency is divided by the factor."""
    attention_factor: Positive | None = None
    """Scale of queries and keys; None derives it from the factor (and the two below)."""
    mscale: float | None = None
    """DeepSeek's weight of the logarithm in the numerator; counts only with mscale_all_dim."""
    mscale_all_dim: float | None = None
    """The same in the denominator."""
    truncate: bool = True
    """Round the two borders to whole dimensions."""

    @property
    def scale(self) -> float:
        """Factor of queries and keys alike."""

        def grown(weight: float) -> float:
            return 0.1 * weight * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return grown(self.mscale) / grown(self.mscale_all_dim)
        return grown(1.0)


RopeScaling = Annotated[LinearScaling | Llama3Scaling | YarnScaling, Field(discriminator="rope_type")]
"""Any of them, told apart by config.json's own rope_type."""


def frequencies(
    scaling: RopeScaling | None, *, head_dim: int, theta: float, device: torch.device | str = "cpu"
) -> Float[Tensor, " half_head_dim"]:
    """Radians per position, for each pair of dimensions; theta^(-2i / head_dim) where nothing is scaled."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    plain = 1 / theta**exponents
    if isinstance(scaling, LinearScaling):
        return plain / scaling.factor
    if isinstance(scaling, Llama3Scaling):
        turns = plain * scaling.original_max_seq_len / (2 * math.pi)
        fast = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        return torch.lerp(plain / scaling.factor, plain, fast.clamp(0, 1))
    if isinstance(scaling, YarnScaling):
        return torch.lerp(plain / scaling.factor, plain, _kept_by_yarn(scaling, plain, theta))
    return plain


def _kept_by_yarn(scaling: YarnScaling, plain: Tensor, theta: float) -> Tensor:
    """1 for pairs that turn often in the trained context, 0 for those that barely turn, a ramp between."""
    head_dim = 2 * len(plain)

    def pair_with(n_turns: float) -> float:
        whole = scaling.original_max_seq_len / (n_turns * 2 * math.pi)
        return head_dim * math.log(whole) / (2 * math.log(theta))

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    pairs = torch.arange(len(plain), device=plain.device, dtype=torch.float32)
    return 1 - ((pairs - first) / ((last - first) or 0.001)).clamp(0, 1)
