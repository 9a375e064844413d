"""Seeds derived by name, so that no two uses of randomness share a stream and none depends on call order."""

import hashlib
import json
import random

import torch

__all__ = ["derive_seed", "generator", "rng"]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the named use, the same on every machine and Python version.

    Args:
        seed: The run's seed.
        names: What the stream is for, such as "dropout", 3; 3 and "3" give different streams.
    """
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator for the named use."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def rng(seed: int, *names: str | int) -> random.Random:
    """A Python generator for the named use."""
    return random.Random(derive_seed(seed, *names))
