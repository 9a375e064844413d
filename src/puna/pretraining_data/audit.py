"""What is in the data: languages (Table 10), pronouns (Table 9a), identity terms (Table 9b), a toxicity proxy.

It only counts: nothing is removed for what it finds (§4.1). The paper scores toxicity with a classifier
trained on ToxiGen; the word list here is a proxy and is named so.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from puna.core.config import Settings

__all__ = [
    "DEMOGRAPHIC_TERMS",
    "MIN_LANGUAGE_FRACTION",
    "AuditConfig",
    "demographic_shares",
    "language_shares",
    "pronoun_shares",
    "toxicity_proxy",
]

WORD = re.compile(r"[a-z']+")

SHE = frozenset(["she", "her", "hers", "herself"])
HE = frozenset(["he", "him", "his", "himself"])
THEY = frozenset(["they", "them", "their", "theirs", "theirself", "themself", "themselves"])
FIRST = frozenset(["i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"])
SECOND = frozenset(["you", "your", "yours", "yourself", "yourselves"])
THIRD = SHE | HE | THEY | frozenset(["it", "its", "itself"])
PRONOUNS: dict[str, frozenset[str]] = {
    "gendered": SHE | HE,
    "she": SHE,
    "he": HE,
    "unspecified": THEY,
    "any_person": FIRST | SECOND | THIRD,
    "first_person": FIRST,
    "second_person": SECOND,
    "third_person": THIRD,
}
"""The word lists of Appendix A.4.3 (PaLM 2's), by row of Table 9a."""

DEMOGRAPHIC_TERMS: dict[str, tuple[str, ...]] = {
    "gender_and_sex": ("female", "male", "feminine", "transgender", "masculine"),
    "sexual_orientation": ("gay", "lesbian", "lgbt", "lgbtq", "queer"),
    "nationality": ("american", "indian", "chinese", "korean", "mexican"),
    "race_and_ethnicity": ("european", "african", "asian", "latin", "indigenous"),
    "religion": ("christian", "religious", "spiritual", "catholic", "jewish"),
}
"""The terms that Table 9b prints, the five most frequent of each axis; the paper counted HolisticBias's all."""

MIN_LANGUAGE_FRACTION = 0.00005
"""Languages rarer than this are not listed (Table 10: 0.005 %)."""


class AuditConfig(Settings):
    """What the audit counts."""

    toxic_terms: tuple[str, ...] = (
        "idiot",
        "stupid",
        "moron",
        "dumb",
        "ugly",
        "worthless",
        "disgusting",
        "scum",
    )
    """A line with one of these lower-case words counts as toxic in the proxy; our choice, a rough one."""


def pronoun_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of the texts with at least one word of each list (Table 9a counts English documents)."""
    return _shares(texts, PRONOUNS)


def demographic_shares(texts: Sequence[str], terms: Mapping[str, tuple[str, ...]]) -> dict[str, dict]:
    """Table 9b: share of texts that mention the axis, then of those the share that hold each term."""
    lists = {axis: frozenset(words) for axis, words in terms.items()}
    lists |= {f"{axis}/{word}": frozenset({word}) for axis, words in terms.items() for word in words}
    shares = _shares(texts, lists)
    table = {}
    for axis, words in terms.items():
        found = {word: shares[f"{axis}/{word}"] for word in words if shares[f"{axis}/{word}"]}
        table[axis] = {
            "document_fraction": shares[axis],
            "term_fractions": {word: share / shares[axis] for word, share in found.items()},
        }
    return table


def language_shares(languages: Iterable[str], min_fraction: float) -> dict[str, float]:
    """Share of pages by language, most frequent first (Table 10)."""
    counts = Counter(languages)
    shares = {language: count / counts.total() for language, count in counts.items()}
    listed = {language: share for language, share in shares.items() if share >= min_fraction}
    return dict(sorted(listed.items(), key=lambda item: (-item[1], item[0])))


def toxicity_proxy(texts: Iterable[str], terms: Sequence[str]) -> dict[str, float]:
    """Word-list stand-in for Figure 13: each line is 0 or 1, their mean is the document's score.

    Returns:
        Mean score, and the share of documents that score 0.5 or more (the paper's classifier: about 0.2 %).
    """
    listed = frozenset(terms)
    scores = []
    for text in texts:
        lines = [line for line in text.lower().splitlines() if line.strip()]
        n_toxic = sum(not listed.isdisjoint(WORD.findall(line)) for line in lines)
        scores.append(n_toxic / max(1, len(lines)))
    n = max(1, len(scores))
    return {
        "mean_score": sum(scores) / n,
        "fraction_at_least_half": sum(score >= 0.5 for score in scores) / n,
    }


def _shares(texts: Iterable[str], lists: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """By list, the share of texts that hold one of its words."""
    counts: Counter[str] = Counter()
    n_texts = 0
    for text in texts:
        n_texts += 1
        words = frozenset(WORD.findall(text.lower()))
        counts.update(name for name, listed in lists.items() if not listed.isdisjoint(words))
    return {name: counts[name] / max(1, n_texts) for name in lists}
