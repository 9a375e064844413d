"""The mixture of sources: how often each page is seen, in which order, and which pages are held out.

Source: §2.1, the most factual sources are up-sampled to increase knowledge and dampen hallucinations; the
paper gives no weights, so they are settings.
"""

from collections.abc import Mapping, Sequence

from puna.core.seeding import rng

__all__ = ["held_out", "mixture_order", "passes"]


def passes(n_documents: int, weight: float, *, seed: int, source: str) -> list[int]:
    """Indices of a source's pages, each floor(weight) times and a seeded share once more.

    Args:
        weight: Passes over the source; 2.5 shows half of the pages three times, the others twice.
    """
    whole, fraction = divmod(weight, 1)
    n_extra = round(fraction * n_documents)
    extra = rng(seed, "passes", source).sample(range(n_documents), n_extra)
    return list(range(n_documents)) * int(whole) + sorted(extra)


def mixture_order(
    counts: Mapping[str, int], weights: Mapping[str, float], *, seed: int
) -> list[tuple[str, int]]:
    """Every (source, index) to be seen, up-sampled, in one seeded shuffle over all sources."""
    order = [
        (source, index)
        for source in sorted(counts)
        for index in passes(counts[source], weights.get(source, 1.0), seed=seed, source=source)
    ]
    rng(seed, "mixture_order").shuffle(order)
    return order


def held_out(ids: Sequence[str], fraction: float, *, seed: int, source: str) -> frozenset[str]:
    """Ids of a source's validation pages: the rounded fraction, at least one, never more than half."""
    n_held_out = min(len(ids) // 2, max(1, round(fraction * len(ids)))) if fraction > 0 else 0
    return frozenset(rng(seed, "held_out", source).sample(list(ids), n_held_out))
