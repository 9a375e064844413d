"""Exact and near duplicates."""

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from puna.pretraining_data.dedup import (
    DedupConfig,
    ExactDeduplicator,
    NearDeduplicator,
    jaccard,
    normalise,
    shingles,
)

CONFIG = DedupConfig(shingle_words=3, n_bands=32, rows_per_band=4, min_jaccard=0.6)


def random_page(seed: int, n_words: int = 60) -> list[str]:
    r = random.Random(seed)
    return ["".join(r.choices(string.ascii_lowercase, k=5)) for _ in range(n_words)]


def test_normalisation_hides_case_punctuation_and_space() -> None:
    assert normalise("The  Goat,\n eats -- hay.") == normalise("the goat eats hay") == "the goat eats hay"
    assert normalise("?!") == "?!"


def test_exact_copies_name_the_first_page() -> None:
    dedup = ExactDeduplicator()
    assert dedup.add("a", "The goat eats.") is None
    assert dedup.add("b", "the cow eats") is None
    assert dedup.add("c", "the goat EATS") == "a"


def test_shingles_closed_form() -> None:
    assert len(shingles("a b c d e", 3)) == 3
    assert len(shingles("a b a b a b", 2)) == 2
    assert len(shingles("a b", 5)) == 1
    assert len(shingles("", 5)) == 0
    assert shingles("a b c", 3) != shingles("c b a", 3)


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30)


@given(words, words)
def test_jaccard_is_that_of_the_word_runs(left: list[str], right: list[str]) -> None:
    def runs(tokens: list[str]) -> set[tuple[str, ...]]:
        n = min(2, len(tokens))
        return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}

    expected = len(runs(left) & runs(right)) / len(runs(left) | runs(right))
    assert jaccard(shingles(" ".join(left), 2), shingles(" ".join(right), 2)) == pytest.approx(expected)


def test_signature_agreement_estimates_jaccard() -> None:
    """1,024 minima: a standard deviation is at most 0.0157, six of them 0.094."""
    dedup = NearDeduplicator(DedupConfig(n_bands=128, rows_per_band=8))
    page = random_page(0, 400)
    left = shingles(" ".join(page[:300]), 3)
    right = shingles(" ".join(page[100:]), 3)
    agreement = float(np.mean(dedup.signature(left) == dedup.signature(right)))
    assert abs(agreement - jaccard(left, right)) < 0.094


def test_one_changed_word_is_a_near_duplicate_and_another_page_is_not() -> None:
    dedup = NearDeduplicator(CONFIG)
    page = random_page(1)
    changed = [*page[:20], "indeed", *page[21:]]
    assert dedup.add("a", " ".join(page)) is None
    assert dedup.add("b", " ".join(random_page(2))) is None
    assert dedup.add("c", " ".join(changed)) == "a"


def is_near(left: list[str], right: list[str], min_jaccard: float) -> bool:
    """Words as shingles, and so many bands of one row that any common word brings two pages together: only the
    comparison decides."""
    config = DedupConfig(shingle_words=1, n_bands=512, rows_per_band=1, min_jaccard=min_jaccard)
    dedup = NearDeduplicator(config)
    dedup.add("a", " ".join(left))
    return dedup.add("b", " ".join(right)) == "a"


@pytest.mark.parametrize(
    ("start", "end", "min_jaccard", "similarity", "expected"),
    [
        (10, 50, 0.6, 30 / 50, True),  # two pages of one size: 30 words in common, 50 in all
        (0, 24, 0.6, 24 / 40, True),  # one page inside the other: here the bound by size is met exactly, too
        (0, 30, 0.75, 30 / 40, True),
        (0, 29, 0.75, 29 / 40, False),
        (11, 51, 0.6, 29 / 51, False),
    ],
)
def test_pages_at_the_threshold_are_near(
    start: int, end: int, min_jaccard: float, similarity: float, expected: bool
) -> None:
    words = random_page(5, 60)
    left, right = words[:40], words[start:end]
    assert jaccard(shingles(" ".join(left), 1), shingles(" ".join(right), 1)) == similarity
    assert is_near(left, right, min_jaccard) is expected


def test_small_changes_do_not_chain() -> None:
    """Each page is near the one before; pages are compared with kept pages only, so the far end stays."""
    dedup = NearDeduplicator(CONFIG)
    page, other = random_page(3), random_page(4)
    chain = [" ".join(other[:n] + page[n:]) for n in range(0, 61, 10)]
    kept = [n for n, text in enumerate(chain) if dedup.add(str(n), text) is None]
    assert kept[0] == 0
    assert len(kept) > 1


def test_bands_that_cannot_reach_the_similarity_are_refused() -> None:
    with pytest.raises(ValidationError, match="n_bands"):
        DedupConfig(n_bands=2, rows_per_band=16, min_jaccard=0.5)
