"""Counts as people write them: 2T tokens, 500B, 4M."""

import math
import re

from puna.core.errors import ConfigError

__all__ = ["parse_count", "short_count"]

_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_count(text: str, *, where: str) -> int:
    """A positive whole number, with a decimal suffix or without.

    Raises:
        ConfigError: it is none.
    """
    plain = text.strip().replace("_", "").replace(",", "").upper()
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:E\d+)?)([KMBT]?)", plain)
    value = float(match[1]) * _SUFFIXES[match[2]] if match else 0.0
    if not math.isfinite(value) or value < 1 or value != round(value) or value > 1e18:
        raise ConfigError(
            where=where,
            expected="a whole number such as 2T, 500B, 4M, 1.4T or 2_000_000",
            got=repr(text),
            fix="K, M, B and T stand for 10^3, 10^6, 10^9 and 10^12.",
        )
    return round(value)


def short_count(value: float) -> str:
    """Three digits and a suffix: 6.74B."""
    for suffix in ("T", "B", "M", "K"):
        if value >= _SUFFIXES[suffix]:
            return f"{value / _SUFFIXES[suffix]:.3g}{suffix}"
    return f"{value:.3g}"
