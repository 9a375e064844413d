"""Exact and near de-duplication: sha256 of normalised text, MinHash with locality-sensitive hashing.

Source: MinHash, Broder 1997; banding, Leskovec et al., Mining of Massive Datasets, §3.4. The paper says only
that its data was cleaned more robustly than Llama 1's (§2). Every random-looking choice is a fixed hash.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from puna.core.config import Settings

__all__ = ["DedupConfig", "ExactDeduplicator", "NearDeduplicator", "jaccard", "normalise", "shingles"]

Hashes = NDArray[np.uint64]
WORD = re.compile(r"[^\W_]+")


class DedupConfig(Settings):
    """What counts as the same page. Defaults are FineWeb's (Penedo et al. 2024, §3.4); the check is ours."""

    shingle_words: int = Field(default=5, ge=1)
    """Words in a shingle; short pages need fewer, for one changed word spoils so many shingles."""
    n_bands: int = Field(default=14, ge=1)
    """Bands of the signature; one equal band makes two pages candidates."""
    rows_per_band: int = Field(default=8, ge=1)
    """Minima in a band; candidates become likely from a similarity of (1 / n_bands) ** (1 / rows_per_band)."""
    min_jaccard: float = Field(default=0.75, gt=0, le=1)
    """Candidates are near duplicates from this similarity of their shingle sets on, computed exactly."""

    @model_validator(mode="after")
    def _reach(self) -> "DedupConfig":
        if (1 / self.n_bands) ** (1 / self.rows_per_band) > self.min_jaccard:
            raise ValueError("pages at min_jaccard would rarely meet: more n_bands or fewer rows_per_band")
        return self


def normalise(text: str) -> str:
    """Case folded, punctuation gone, one space between words: what exact duplicates agree in."""
    return " ".join(WORD.findall(text.casefold())) or text.strip()


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _scramble(values: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele et al. 2014): every bit of the input reaches every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shingles(text: str, n_words: int) -> Hashes:
    """Sorted hashes of the different runs of n_words words; a shorter text is one shingle."""
    words = np.array([_word_hash(word) for word in normalise(text).split()], dtype=np.uint64)
    n = max(1, min(n_words, len(words)))
    total = np.zeros(max(0, len(words) - n + 1), dtype=np.uint64)
    for offset in range(n):
        total = _scramble(total + words[offset : offset + len(total)])
    return np.unique(total)


def jaccard(left: Hashes, right: Hashes) -> float:
    """Size of the intersection over size of the union of two sets, each sorted and unique."""
    n_common = len(np.intersect1d(left, right, assume_unique=True))
    n_union = len(left) + len(right) - n_common
    return n_common / n_union if n_union else 1.0


class ExactDeduplicator:
    """Remembers what it has seen by the sha256 of the normalised text."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def add(self, document_id: str, text: str) -> str | None:
        """The id of the first page with this text; None when this page is the first."""
        key = hashlib.sha256(normalise(text).encode()).digest()
        first = self._first.setdefault(key, document_id)
        return None if first == document_id else first


class NearDeduplicator:
    """Keeps the first page of each neighbourhood; a page is compared with kept pages only, so that no chain
    of small changes joins two different pages."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config
        n_minima = config.n_bands * config.rows_per_band
        numbers = _scramble(np.arange(1, 2 * n_minima + 1, dtype=np.uint64))
        self._factors = numbers[:n_minima] | np.uint64(1)
        self._offsets = numbers[n_minima:]
        self._buckets: list[dict[bytes, list[int]]] = [{} for _ in range(config.n_bands)]
        self._kept: list[tuple[str, Hashes]] = []

    def signature(self, hashes: Hashes) -> NDArray[np.uint32]:
        """Minimum of each of the fixed hash functions over the shingles (multiply-add-shift)."""
        values = (hashes[:, None] * self._factors + self._offsets) >> np.uint64(32)  # (shingle, minimum)
        return values.min(axis=0, initial=0xFFFFFFFF).astype(np.uint32)

    def add(self, document_id: str, text: str) -> str | None:
        """The id of the first kept page that is a near duplicate; None when this page is kept."""
        hashes = shingles(text, self.config.shingle_words)
        bands = self.signature(hashes).reshape(self.config.n_bands, -1)
        keys = [band.tobytes() for band in bands]
        found: set[int] = set()
        for bucket, key in zip(self._buckets, keys, strict=True):
            found.update(bucket.get(key, ()))
        for index in sorted(found):
            kept_id, kept_hashes = self._kept[index]
            if (
                self._may_reach(hashes, kept_hashes)
                and jaccard(hashes, kept_hashes) >= self.config.min_jaccard
            ):
                return kept_id
        for bucket, key in zip(self._buckets, keys, strict=True):
            bucket.setdefault(key, []).append(len(self._kept))
        self._kept.append((document_id, hashes))
        return None

    def _may_reach(self, left: Hashes, right: Hashes) -> bool:
        """Sets of very different size cannot be similar enough: a cheap bound before the exact count."""
        small, large = sorted((len(left), len(right)))
        return small >= self.config.min_jaccard * large
