"""The filters in their order, one verdict a page: language, quality, personal information, duplicates (§2.1)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from puna.core.config import Settings
from puna.core.records import Document
from puna.pretraining_data.dedup import DedupConfig, ExactDeduplicator, NearDeduplicator
from puna.pretraining_data.language import LanguageConfig, identify
from puna.pretraining_data.personal_information import PersonalInformationConfig, find, is_heavy
from puna.pretraining_data.quality import QualityConfig, first_failure

__all__ = ["REASONS", "FilterConfig", "Reason", "Verdict", "judge"]

Reason = Literal["language", "low_quality", "personal_information", "exact_duplicate", "near_duplicate"]

REASONS: tuple[Reason, ...] = (
    "language", "low_quality", "personal_information", "exact_duplicate", "near_duplicate"
)  # fmt: skip
"""Why a page is dropped, in the order the filters run. Toxicity is no reason, on purpose (§4.1)."""


class FilterConfig(Settings):
    """Settings of all filters; None switches one off."""

    language: LanguageConfig = LanguageConfig()
    """Languages are always identified; its `keep` says which stay."""
    quality: QualityConfig | None = QualityConfig()
    """Rules for prose."""
    personal_information: PersonalInformationConfig | None = PersonalInformationConfig()
    """Page removal."""
    dedup: DedupConfig | None = DedupConfig()
    """Exact and near duplicates."""


@dataclass(frozen=True)
class Verdict:
    """What the filters say of one page."""

    language: str
    reason: Reason | None = None
    detail: str = ""
    """The broken rule, the kinds of personal information, or the id of the page that was kept instead."""


def judge(
    documents: Iterable[Document],
    config: FilterConfig,
    *,
    is_prose: Callable[[str], bool],
    advance: Callable[[], None] = lambda: None,
) -> list[Verdict]:
    """One verdict a page, in order; of duplicates the first page in the input stays.

    Args:
        is_prose: Whether a source's pages are prose, so that language and quality rules apply to them.
        advance: Called after each page.
    """
    exact, near = ExactDeduplicator(), NearDeduplicator(config.dedup or DedupConfig())
    verdicts = []
    for document in documents:
        language = identify(document.text, config.language)
        failure = _content_failure(document.text, language, config, is_prose=is_prose(document.source))
        if failure is None and config.dedup is not None:
            failure = _duplicate_failure(document, exact, near)
        verdicts.append(Verdict(language, *(failure or ())))
        advance()
    return verdicts


def _content_failure(
    text: str, language: str, config: FilterConfig, *, is_prose: bool
) -> tuple[Reason, str] | None:
    if is_prose and config.language.keep is not None and language not in config.language.keep:
        return "language", language
    if is_prose and config.quality is not None and (rule := first_failure(text, config.quality)):
        return "low_quality", rule
    if config.personal_information is not None:
        hits = find(text)
        if is_heavy(hits, config.personal_information):
            return "personal_information", ", ".join(sorted({hit.kind for hit in hits}))
    return None


def _duplicate_failure(
    document: Document, exact: ExactDeduplicator, near: NearDeduplicator
) -> tuple[Reason, str] | None:
    if first := exact.add(document.id, document.text):
        return "exact_duplicate", first
    if kept := near.add(document.id, document.text):
        return "near_duplicate", kept
    return None
