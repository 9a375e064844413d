"""Expected best and median reward of k samples out of K, over all subsets (Figure 7), by order statistics."""

import math
from collections.abc import Sequence

__all__ = ["expected_max", "expected_median", "expected_order_statistic", "reward_by_k"]


def expected_order_statistic(ascending: Sequence[float], k: int, rank: int) -> float:
    """Mean, over every k-subset, of its rank-th smallest value: unbiased, and no subset is drawn.

    The i-th smallest of n is the rank-th smallest of C(i-1, rank-1) C(n-i, k-rank) of the C(n, k) subsets.
    """
    n = len(ascending)
    n_subsets = math.comb(n, k)
    return sum(
        value * (math.comb(i, rank - 1) * math.comb(n - 1 - i, k - rank) / n_subsets)
        for i, value in enumerate(ascending)
    )


def expected_max(values: Sequence[float], k: int) -> float:
    """Mean best of k values."""
    return expected_order_statistic(sorted(values), k, k)


def expected_median(values: Sequence[float], k: int) -> float:
    """Mean median of k values; of an even number the two middle ones count half each."""
    ascending = sorted(values)
    low, high = (k + 1) // 2, k // 2 + 1
    return (expected_order_statistic(ascending, k, low) + expected_order_statistic(ascending, k, high)) / 2


def reward_by_k(rewards: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Figure 7's two lines: at k = 1, 2, 4 .. K, the best and the median of k samples, mean over prompts.

    Args:
        rewards: One list of K rewards per prompt.
    """
    k_max = min(len(row) for row in rewards)
    ks = sorted({1 << power for power in range(k_max.bit_length()) if 1 << power <= k_max} | {k_max})
    return [
        {
            "k": k,
            "max_mean": math.fsum(expected_max(row, k) for row in rewards) / len(rewards),
            "median_mean": math.fsum(expected_median(row, k) for row in rewards) / len(rewards),
        }
        for k in ks
    ]
