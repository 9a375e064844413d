"""Quality rules for prose pages after Gopher, C4 and FineWeb: each a predicate that is true of a bad page.

The paper publishes no quality rules ("a new mix of publicly available online data", §2.1), so the public
rules of its time stand in. There is no toxicity rule, on purpose (§4.1: the data was not filtered for it).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from puna.core.config import Settings

__all__ = ["RULES", "Page", "QualityConfig", "first_failure"]

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""Gopher's eight (Rae et al. 2021, Appendix A.1.1)."""
TERMINALS = (".", "!", "?", '"', "'", "”", "’")  # noqa: RUF001
"""C4's terminal punctuation marks (Raffel et al. 2020, §2.2), closing quotation marks included."""
BOILERPLATE = ("lorem ipsum", "javascript is disabled", "enable javascript", "terms of use",
               "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")  # fmt: skip
"""C4 removes lines with these (§2.2, its released code)."""


class QualityConfig(Settings):
    """Limits of the rules; defaults are their sources' values, made for web pages of hundreds of words."""

    min_words: int = 50
    """Words (Gopher)."""
    max_words: int = 100_000
    """Words (Gopher)."""
    min_mean_word_length: float = 3
    """Characters (Gopher)."""
    max_mean_word_length: float = 10
    """Characters (Gopher)."""
    max_symbol_fraction: float = 0.1
    """Hashes, and ellipses, per word (Gopher)."""
    max_bullet_line_fraction: float = 0.9
    """Share of lines that start with a bullet (Gopher)."""
    max_ellipsis_line_fraction: float = 0.3
    """Share of lines that end in an ellipsis (Gopher)."""
    min_alphabetic_word_fraction: float = 0.8
    """Share of words with a letter (Gopher)."""
    min_stop_words: int = 2
    """Different words of Gopher's list of eight that a page must hold."""
    max_duplicate_line_fraction: float = 0.3
    """Share of lines that repeat an earlier one (Gopher)."""
    max_top_ngram_fractions: dict[int, float] = Field(default={2: 0.20, 3: 0.18, 4: 0.16})
    """By n: share of characters inside the most frequent word n-gram (Gopher)."""
    max_duplicate_ngram_fractions: dict[int, float] = Field(
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )
    """By n: share of words inside an n-gram that came before (Gopher; it counts characters)."""
    min_sentences: int = 3
    """Sentences (C4)."""
    min_terminal_line_fraction: float = 0.12
    """Share of lines ending in terminal punctuation (C4's line rule, as FineWeb's page rule, its value)."""
    max_boilerplate_line_fraction: float = 0.3
    """Share of lines with a phrase of BOILERPLATE or a curly brace (C4 cuts lines or pages; share ours)."""


@dataclass(frozen=True)
class Page:
    """A text with the views that several rules share."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """Separated by white space, as Gopher counts."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, stripped."""
        return [line for line in map(str.strip, self.text.splitlines()) if line]

    def line_fraction(self, is_hit: Callable[[str], bool]) -> float:
        """Share of lines for which is_hit holds."""
        return sum(map(is_hit, self.lines)) / max(1, len(self.lines))

    def ngrams(self, n: int) -> list[tuple[str, ...]]:
        """Word n-grams in order."""
        return list(zip(*(self.words[i:] for i in range(n)), strict=False))


Rule = Callable[[Page, QualityConfig], bool]


def few_words(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: fewer words than a document has."""
    return len(page.words) < limits.min_words


def many_words(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: more words than a document has."""
    return len(page.words) > limits.max_words


def odd_word_length(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: the mean word is too short or too long."""
    mean = sum(map(len, page.words)) / max(1, len(page.words))
    return not limits.min_mean_word_length <= mean <= limits.max_mean_word_length


def many_symbols(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: too many hashes or too many ellipses per word."""
    ellipses = page.text.count("...") + page.text.count("…")
    return max(page.text.count("#"), ellipses) > limits.max_symbol_fraction * len(page.words)


def many_bullets(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: nearly every line starts with a bullet."""
    return (
        page.line_fraction(lambda line: line.startswith(("•", "* ", "- "))) > limits.max_bullet_line_fraction
    )


def many_ellipses(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: many lines are cut off with an ellipsis."""
    return page.line_fraction(lambda line: line.endswith(("...", "…"))) > limits.max_ellipsis_line_fraction


def few_alphabetic_words(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: too few words hold a letter."""
    n_alphabetic = sum(any(map(str.isalpha, word)) for word in page.words)
    return n_alphabetic < limits.min_alphabetic_word_fraction * len(page.words)


def few_stop_words(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1: no sentence-like English, for it lacks the commonest words."""
    return len(STOP_WORDS.intersection(map(str.lower, page.words))) < limits.min_stop_words


def repeated_lines(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1, Table A1: too many lines repeat an earlier one."""
    n_repeats = len(page.lines) - len(set(page.lines))
    return n_repeats > limits.max_duplicate_line_fraction * len(page.lines)


def repeated_top_ngram(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1, Table A1: one n-gram makes up too much of the page (met twice at least)."""
    n_chars = max(1, sum(map(len, page.words)))
    for n, limit in limits.max_top_ngram_fractions.items():
        counts = Counter(page.ngrams(n))
        ngram, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=((), 0))
        if count > 1 and count * sum(map(len, ngram)) > limit * n_chars:
            return True
    return False


def repeated_ngrams(page: Page, limits: QualityConfig) -> bool:
    """Gopher A.1.1, Table A1: too many words lie inside n-grams that came before."""
    return any(
        _repeated_words(page, n) > limit * len(page.words)
        for n, limit in limits.max_duplicate_ngram_fractions.items()
    )


def _repeated_words(page: Page, n: int) -> int:
    """Words covered by an n-gram that also starts earlier; overlapping n-grams count a word once."""
    seen: set[tuple[str, ...]] = set()
    n_repeated = covered_to = 0
    for start, ngram in enumerate(page.ngrams(n)):
        if ngram in seen:
            n_repeated += start + n - max(start, covered_to)
            covered_to = start + n
        seen.add(ngram)
    return n_repeated


def few_sentences(page: Page, limits: QualityConfig) -> bool:
    """C4 §2.2: fewer sentences than a text has."""
    ends = sum(word.rstrip("\"')”’").endswith((".", "!", "?")) for word in page.words)  # noqa: RUF001
    return ends < limits.min_sentences


def few_terminal_lines(page: Page, limits: QualityConfig) -> bool:
    """C4 §2.2 and FineWeb (Penedo et al. 2024, §3.6): too few lines end as sentences do."""
    return page.line_fraction(lambda line: line.endswith(TERMINALS)) < limits.min_terminal_line_fraction


def boilerplate(page: Page, limits: QualityConfig) -> bool:
    """C4 §2.2: placeholder text, script and policy notices, braces of code."""

    def is_boilerplate(line: str) -> bool:
        lower = line.lower()
        return "{" in line or any(phrase in lower for phrase in BOILERPLATE)

    return page.line_fraction(is_boilerplate) > limits.max_boilerplate_line_fraction


RULES: tuple[Rule, ...] = (
    few_words, many_words, odd_word_length, many_symbols, many_bullets, many_ellipses, few_alphabetic_words,
    few_stop_words, few_sentences, few_terminal_lines, boilerplate, repeated_lines, repeated_top_ngram,
    repeated_ngrams,
)  # fmt: skip
"""In the order they are tried; a rule's name is the reason it gives."""


def first_failure(text: str, limits: QualityConfig) -> str | None:
    """The name of the first rule the text breaks, None for a good page."""
    page = Page(text)
    return next((rule.__name__ for rule in RULES if rule(page, limits)), None)
