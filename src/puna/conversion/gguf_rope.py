"""Scaled rotary frequencies in a GGUF: a factor for all (linear), or a tensor of one divisor each (Llama 3).

The tensor does not say from which settings it was computed: the published ones, or those that our own files carry
along in a setting llama.cpp ignores, are tried, and taken only when they give the same divisors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFWriter, RopeScalingType
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from puna.conversion.gguf_file import damaged
from puna.core.errors import ConfigError
from puna.model.config import ModelConfig
from puna.model.rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, frequencies

__all__ = ["ROPE_FREQS", "add_rope_scaling", "divisors", "llama3_scaling", "rope_scaling_from_gguf"]

ROPE_FREQS = "rope_freqs.weight"
"""Name of the tensor."""
_OURS = "puna.rope_scaling"
_PUBLISHED = [
    Llama3Scaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)
    for factor in (8.0, 32.0, 16.0)
]
"""Llama 3.1 and 3.3; 3.2; and Llama Guard's."""


def rope_scaling_from_gguf(metadata: Mapping[str, Any], *, where: Path) -> LinearScaling | None:
    """The scaling that the settings name.

    Raises:
        CheckpointError: it is not linear.
    """
    kind = metadata.get("llama.rope.scaling.type", "linear")
    factor = metadata.get("llama.rope.scaling.factor", metadata.get("llama.rope.scale_linear", 0.0))
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return None
    if kind != "linear" or not isinstance(factor, float) or not 0 < factor < 1e6:
        raise damaged(where, "no scaling of rotary frequencies, or linear", f"{kind!r} by {factor!r}"[:80])
    return LinearScaling(factor=factor)


def llama3_scaling(
    wanted: Float[Tensor, " half_head"], config: ModelConfig, metadata: Mapping[str, Any], *, where: Path
) -> Llama3Scaling | None:
    """The settings that give these divisors; None when all are 1.

    Raises:
        CheckpointError: none that we know do.
    """
    if (wanted == 1).all():
        return None
    for scaling in _candidates(metadata):
        if torch.allclose(divisors(scaling, config), wanted, rtol=1e-5, atol=0):
            return scaling
    raise damaged(where, f"{ROPE_FREQS} of a published Llama 3", f"divisors up to {wanted.max().item():.4g}")


def add_rope_scaling(writer: GGUFWriter, scaling: RopeScaling | None) -> None:
    """Write the settings.

    Raises:
        ConfigError: llama.cpp has no such scaling, or computes it otherwise.
    """
    if scaling is None:
        return
    if isinstance(scaling, LinearScaling):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling.factor)
    elif isinstance(scaling, Llama3Scaling):
        writer.add_string(_OURS, scaling.model_dump_json())
    else:
        raise ConfigError(
            where="rope_scaling",
            expected="none, linear or llama3 in a GGUF file",
            got=scaling.rope_type,
            fix="Write another format.",
        )


def divisors(scaling: Llama3Scaling, config: ModelConfig) -> Float[Tensor, " half_head"]:
    """Unscaled frequency / scaled frequency, in float32 as the tensor holds them."""
    plain, scaled = (
        frequencies(kind, head_dim=config.head_dim, theta=config.rope_theta) for kind in (None, scaling)
    )
    return (plain / scaled).float()


def _candidates(metadata: Mapping[str, Any]) -> list[Llama3Scaling]:
    note = metadata.get(_OURS)
    if not isinstance(note, str):
        return _PUBLISHED
    try:
        return [Llama3Scaling.model_validate_json(note), *_PUBLISHED]
    except ValidationError:
        return _PUBLISHED
