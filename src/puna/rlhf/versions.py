"""The schedule RLHF-V1 .. V5 as data (§3.2.3): what each version does and which samples it learns from."""

from typing import Literal, NamedTuple

__all__ = ["SCHEDULE", "Version"]


class Version(NamedTuple):
    """One iteration of RLHF."""

    name: str
    starts_from: str
    """The model whose weights training begins with; 'base' restarts from the pretrained model."""
    sampled_from: str | None
    """The model that the candidates come from; None where PPO samples from itself."""
    method: Literal["rejection_sampling", "ppo"]
    pool: Literal["latest", "all"] | None
    """Which iterations' samples compete; None for PPO."""
    ghost_attention: bool = False
    """The Ghost Attention set is part of the fine-tuning data (applied after V3)."""


SCHEDULE: tuple[Version, ...] = (
    Version("rlhf-v1", "base", "sft", "rejection_sampling", "latest"),
    Version("rlhf-v2", "base", "rlhf-v1", "rejection_sampling", "latest"),
    Version("rlhf-v3", "base", "rlhf-v2", "rejection_sampling", "latest"),
    Version("rlhf-v4", "base", "rlhf-v3", "rejection_sampling", "all", ghost_attention=True),
    Version("rlhf-v5", "base", "rlhf-v4", "rejection_sampling", "all", ghost_attention=True),
    Version("rlhf-v5-ppo", "rlhf-v5", None, "ppo", None, ghost_attention=True),
)
"""Rejection sampling alone up to V4, then PPO on top of it; only the last iteration's samples through V3, all later."""
