"""95 % intervals for rates and means, so that no number is reported without its uncertainty."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from puna.core.seeding import generator

__all__ = ["Z_95", "Interval", "mean_interval", "wilson_interval"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""

N_RESAMPLES = 2000
"""Bootstrap resamples: the ends of an interval then move by about 2 % of its width between seeds."""

CHUNK = 50
"""Resamples held at once: memory stays at 400 bytes a value."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson_interval(n_hits: float, n: int) -> Interval:
    """Score interval of a proportion; sensible at 0, at n and for small n.

    Source: Wilson 1927. A tie may count as half a hit.

    Args:
        n_hits: From 0 to n.
        n: Independent trials; none gives (0, 1), which claims nothing.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = n_hits / n, Z_95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = max(0.0, center - half), min(1.0, center + half)
    return Interval(0.0 if n_hits == 0 else low, 1.0 if n_hits == n else high)


def mean_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean: makes no assumption of normality.

    Source: Efron 1979. The same values in the same order give the same interval.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of no values has no interval")
    sample = torch.tensor(values, dtype=torch.float64)
    source, n = generator(seed, "bootstrap"), len(values)
    means = torch.cat(
        [
            sample[torch.randint(n, (CHUNK, n), generator=source)].mean(dim=1)
            for _ in range(N_RESAMPLES // CHUNK)
        ]
    )
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)
