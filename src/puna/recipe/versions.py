"""The schedule of RLHF versions (§3.2.3) as data: what each starts from, how it is tuned, and what it learns from."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from puna.core.config import Settings

__all__ = ["PAPER_SCHEDULE", "Version", "check_schedule", "round_of"]

BASE_MODELS = ("pretrained", "sft")
"""What a version may start from besides earlier versions."""

TAKEN = frozenset(
    [
        "sandbox",
        "data",
        "dialogs",
        "preferences",
        "prompts",
        "tokenizer",
        "tokens",
        "pretraining",
        "pretrained",
        "sft",
        "sft-variant",
        "reward",
        "samples",
        "safety",
        "gatt",
        "evaluation",
        "report",
    ]
)
"""Folders of a run, and boxes of Figure 4: no names for versions."""


class Version(Settings):
    """One version of the chat model."""

    name: str = Field(pattern=re.compile(r"^[A-Za-z0-9][\w.-]*\Z"))
    """Of its folder."""
    method: Literal["rejection_sampling", "ghost_attention", "ppo"] = "rejection_sampling"
    """rejection_sampling opens a round: fresh preferences, new reward models, samples, fine-tuning on the best of them.
    ghost_attention tunes a version further on Ghost Attention dialogs (§3.3). ppo continues a version with PPO."""
    starts_from: str = "pretrained"
    """The model whose weights training begins with: pretrained, sft, or an earlier version. §3.2.3 restarts every
    rejection-sampling version from the pretrained model."""
    pool: Literal["latest", "all"] = "latest"
    """Whose samples compete for selection: this round's, or those of all earlier rounds too (§3.2.3)."""
    has_ghost_attention: bool = False
    """A rejection-sampling version also learns from the Ghost Attention dialogs."""


PAPER_SCHEDULE: tuple[Version, ...] = (
    Version(name="rlhf-v1"),
    Version(name="rlhf-v2"),
    Version(name="rlhf-v3"),
    Version(name="rlhf-v4", pool="all", has_ghost_attention=True),
    Version(name="rlhf-v5", pool="all", has_ghost_attention=True),
    Version(name="rlhf-v5-ppo", method="ppo", starts_from="rlhf-v5"),
)
"""Rejection sampling alone up to V4, then PPO on top of it; samples of the latest round only through V3, of all rounds
after that (§3.2.3); Ghost Attention after V3 (§3.3). The paper does not say from which version on PPO ran beyond "V5":
that V5 is sampled again before PPO is our reading."""


def check_schedule(versions: Sequence[Version]) -> None:
    """Refuse a schedule that no run can follow.

    Raises:
        ValueError: a name comes twice or is another folder's, a version starts from none before it, no round comes
            before Ghost Attention or PPO, or a setting is given that the version's method does not use.
    """
    known, names = set(BASE_MODELS), set(TAKEN)
    for version in versions:
        if version.name.lower() in names:  # some disks do not tell upper case from lower
            raise ValueError(f"versions: the name {version.name!r} is taken; give every version its own")
        if version.starts_from not in known:
            raise ValueError(
                f"versions: {version.name} starts from {version.starts_from!r}, which is none of "
                f"{', '.join(sorted(known))}; versions start from one before them"
            )
        if version.method != "rejection_sampling" and round_of(versions, version) == 0:
            raise ValueError(
                f"versions: {version.name} needs a rejection_sampling version before it, whose reward models it uses"
            )
        if version.method != "rejection_sampling" and (
            version.pool != "latest" or version.has_ghost_attention
        ):
            raise ValueError(
                f"versions: {version.name} is made by {version.method}, which does not use pool and "
                "has_ghost_attention; give them to a rejection_sampling version"
            )
        known.add(version.name)
        names.add(version.name.lower())


def round_of(versions: Sequence[Version], version: Version) -> int:
    """The round that a version belongs to, from 1: how many rejection-sampling versions there are up to it."""
    upto = versions[: list(versions).index(version) + 1]
    return sum(other.method == "rejection_sampling" for other in upto)
