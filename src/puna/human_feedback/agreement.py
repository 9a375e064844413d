"""Agreement between annotators beyond chance: Gwet's AC1 and AC2 (§3.4.2, §4.4).

Categories are the integers 0 to n_categories - 1; where they are ordered, ordinal weights give partial credit.
"""

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Literal

from puna.core.errors import DataError

__all__ = ["Weighting", "gwet_ac", "weights"]

Weighting = Literal["identity", "linear", "quadratic", "ordinal"]


def weights(n_categories: int, weighting: Weighting) -> list[list[float]]:
    """How much two judgements agree: 1 on the diagonal, down to 0 for the farthest pair.

    Source: Gwet, Handbook of Inter-Rater Reliability, 4th ed. 2014, ch. 3: an ordinal pair (k, l) disagrees by the
    number of pairs of categories between k and l inclusive, C(|k - l| + 1, 2).
    """
    farthest = max(1, n_categories - 1)

    def weight(distance: int) -> float:
        if weighting == "identity":
            return float(distance == 0)
        if weighting == "ordinal":
            return 1 - comb(distance + 1, 2) / comb(farthest + 1, 2)
        return 1 - (distance / farthest) ** (1 if weighting == "linear" else 2)

    return [[weight(abs(k - l)) for l in range(n_categories)] for k in range(n_categories)]  # noqa: E741


def gwet_ac(
    judgements: Sequence[Sequence[int | None]], *, n_categories: int, weighting: Weighting = "ordinal"
) -> float:
    """Gwet's coefficient: AC1 with identity weights, AC2 with any others.

    Source: Gwet 2008 (British J. of Mathematical and Statistical Psychology 61) for AC1, Gwet 2014 for AC2. Unlike
    kappa it stays meaningful when almost all judgements fall in one category, as safety labels do.

    Args:
        judgements: One row an item, one entry an annotator; None where one did not judge it.
    Returns:
        1 is full agreement, 0 is chance.
    Raises:
        DataError: no item has two judgements.
    """
    grid = weights(n_categories, weighting)
    counted = [Counter(j for j in row if j is not None) for row in judgements]
    judged = [counts for counts in counted if counts]
    shared = [counts for counts in judged if counts.total() >= 2]
    if not shared:
        raise _too_few("an item that two annotators judged")
    observed = sum(_item_agreement(counts, grid) for counts in shared) / len(shared)
    prevalence = [sum(c[k] / c.total() for c in judged) / len(judged) for k in range(n_categories)]
    spread = sum(p * (1 - p) for p in prevalence)
    by_chance = sum(map(sum, grid)) * spread / max(1, n_categories * (n_categories - 1))
    return (observed - by_chance) / (1 - by_chance)


def _item_agreement(counts: Counter[int], grid: Sequence[Sequence[float]]) -> float:
    """Mean weight over the ordered pairs of judgements of one item."""
    n = counts.total()
    credit = sum(grid[k][m] * counts[k] * counts[m] for k in counts for m in counts)
    return (credit - n) / (n * (n - 1))


def _too_few(expected: str) -> DataError:
    return DataError(where="agreement", expected=expected, got="none", fix="Have some items judged twice.")
