"""The data stage: pages in; kept pages, dropped pages with reasons, a tokenizer sample and an audit out (§2.1)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import DataError
from puna.core.inputs import licence_line
from puna.core.records import Document, Record, read_records, write_records
from puna.core.seeding import rng
from puna.core.stage import Metrics, stage
from puna.pretraining_data.audit import (
    DEMOGRAPHIC_TERMS,
    MIN_LANGUAGE_FRACTION,
    AuditConfig,
    demographic_shares,
    language_shares,
    pronoun_shares,
    toxicity_proxy,
)
from puna.pretraining_data.filters import FilterConfig, Verdict, judge
from puna.pretraining_data.mixture import held_out
from puna.pretraining_data.sources import SourceConfig, read_source, source_licence
from puna.pretraining_data.truth import measure

__all__ = ["AUDIT", "TRAIN", "VALIDATION", "DataConfig", "Dropped", "build_corpus"]

TRAIN, VALIDATION, AUDIT = "documents.jsonl.zst", "validation.jsonl.zst", "audit.json"


class DataConfig(Settings):
    """What goes into the corpus and what is left out."""

    sources: tuple[SourceConfig, ...] = ()
    """Sources to read, and settings of sources that the given documents name."""
    filters: FilterConfig = FilterConfig()
    """Language, quality, personal information, duplicates."""
    audit: AuditConfig = AuditConfig()
    """What is counted in the kept pages."""
    validation_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of each source's kept pages held out; our choice."""
    tokenizer_sample_bytes: int = Field(default=20_000_000, ge=1)
    """UTF-8 bytes of training text in the tokenizer's sample; our choice."""

    @model_validator(mode="after")
    def _names_differ(self) -> "DataConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        return self

    def source(self, name: str) -> SourceConfig:
        """The settings of a source, defaults when the recipe does not name it."""
        return next((source for source in self.sources if source.name == name), SourceConfig(name=name))


class Dropped(Record):
    """One page that was left out."""

    id: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Corpus:
    """All pages with their verdicts, in input order."""

    documents: Sequence[Document]
    verdicts: Sequence[Verdict]

    def kept(self) -> list[tuple[Document, Verdict]]:
        """Pages that no filter dropped."""
        pairs = zip(self.documents, self.verdicts, strict=True)
        return [(page, verdict) for page, verdict in pairs if verdict.reason is None]

    def dropped(self) -> list[Dropped]:
        """Pages that a filter dropped."""
        return [
            Dropped(id=page.id, source=page.source, reason=verdict.reason, detail=verdict.detail)
            for page, verdict in zip(self.documents, self.verdicts, strict=True)
            if verdict.reason is not None
        ]


@stage("pretraining_data")
def build_corpus(config: DataConfig, context: StageContext, *, documents: Path | None = None) -> Metrics:
    """Clean and audit the given documents and the configured sources.

    Args:
        documents: A JSON Lines file of Document, read before the sources.
    Raises:
        DataError: a source is missing, a line is broken, nothing comes in, or nothing is kept.
    """
    pages = _read(config, documents)
    with context.reporter.track("filtering", len(pages), "page") as progress:
        verdicts = judge(
            pages,
            config.filters,
            is_prose=lambda name: config.source(name).is_prose,
            advance=progress.advance,
        )
    corpus = Corpus(pages, verdicts)
    _refuse_nothing_kept(corpus)
    train, validation = _split(corpus, config.validation_fraction, context.seed)
    write_records(context.folder / TRAIN, train)
    write_records(context.folder / VALIDATION, validation)
    write_records(context.folder / "dropped.jsonl", corpus.dropped())
    _write_tokenizer_sample(context.folder, train, config.tokenizer_sample_bytes, context.seed)
    report = _audit(config, corpus, documents, n_validation=Counter(page.source for page in validation))
    (context.folder / AUDIT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    metrics = {key: value for key, value in report.items() if isinstance(value, int | float)}
    return metrics | {"dropped": report["dropped"], **measure(pages, verdicts)}


def _read(config: DataConfig, documents: Path | None) -> list[Document]:
    pages = list(read_records(documents, Document)) if documents else []
    for source in config.sources:
        if source.reader is not None:
            pages += read_source(source)
    where = str(documents or "sources")
    if not any(page.text.strip() for page in pages):
        got = f"{len(pages)} pages, none with text"
        fix = "Give documents, or sources with a reader."
        raise DataError(where=where, expected="at least one page of text", got=got, fix=fix)
    repeated = [page_id for page_id, count in Counter(page.id for page in pages).items() if count > 1]
    if repeated:
        fix = "Give every page an id of its own."
        raise DataError(where=where, expected="different ids", got=f"{repeated[0]!r} twice", fix=fix)
    return pages


def _refuse_nothing_kept(corpus: Corpus) -> None:
    if not corpus.kept():
        counts = Counter(f"{page.reason}: {page.detail}" for page in corpus.dropped()).most_common(5)
        got = f"all {len(corpus.documents)} dropped; " + ", ".join(f"{n} by {reason}" for reason, n in counts)
        fix = "Loosen the filter that drops most, or mark the source with is_prose = false if it is code."
        raise DataError(where="filters", expected="pages that pass", got=got, fix=fix)


def _split(corpus: Corpus, fraction: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Training and validation pages; held out per source, after duplicates are gone."""
    by_source: dict[str, list[str]] = {}
    for page, _ in corpus.kept():
        by_source.setdefault(page.source, []).append(page.id)
    out = frozenset[str]().union(
        *(held_out(ids, fraction, seed=seed, source=source) for source, ids in sorted(by_source.items()))
    )
    pages = [page for page, _ in corpus.kept()]
    return [page for page in pages if page.id not in out], [page for page in pages if page.id in out]


def _write_tokenizer_sample(folder: Path, train: Sequence[Document], max_bytes: int, seed: int) -> None:
    """Training pages in seeded order until the limit, one line of text a line."""
    order = list(train)
    rng(seed, "tokenizer_sample").shuffle(order)
    n_bytes = 0
    with (folder / "tokenizer_sample.txt").open("w", encoding="utf-8", newline="\n") as stream:
        for page in order:
            if n_bytes >= max_bytes:
                break
            n_bytes += len(page.text.encode())
            stream.write(page.text.rstrip("\n") + "\n")


def _audit(
    config: DataConfig, corpus: Corpus, documents: Path | None, *, n_validation: Mapping[str, int]
) -> dict[str, Any]:
    """The data card: Tables 9a, 9b and 10 of the paper for this corpus, and every source's account."""
    names = list(dict.fromkeys(page.source for page in corpus.documents))
    given = licence_line(documents) if documents else ""
    kept = corpus.kept()
    english = [page.text for page, verdict in kept if verdict.language == "en"]
    return {
        "n_pages": len(corpus.documents),
        "n_kept": len(kept),
        "n_validation": sum(n_validation.values()),
        "n_bytes": sum(len(page.text.encode()) for page, _ in kept),
        "dropped": dict(Counter(page.reason for page in corpus.dropped()).most_common()),
        "sources": {
            name: _account(config.source(name), corpus, given) | {"n_validation": n_validation.get(name, 0)}
            for name in names
        },
        "languages_read": language_shares((v.language for v in corpus.verdicts), MIN_LANGUAGE_FRACTION),
        "languages_kept": language_shares((v.language for _, v in kept), MIN_LANGUAGE_FRACTION),
        "n_english": len(english),
        "pronouns": pronoun_shares(english),
        "demographics": demographic_shares(english, DEMOGRAPHIC_TERMS),
        "toxicity_proxy": toxicity_proxy(english, config.audit.toxic_terms),
    }


def _account(source: SourceConfig, corpus: Corpus, given_licence: str) -> dict[str, Any]:
    """Rows in, kept and dropped of one source; low quality is broken down by rule."""
    dropped: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    n_pages = n_kept = n_bytes = 0
    for page, verdict in zip(corpus.documents, corpus.verdicts, strict=True):
        if page.source != source.name:
            continue
        n_pages += 1
        if verdict.reason is None:
            n_kept += 1
            n_bytes += len(page.text.encode())
            continue
        dropped[verdict.reason] += 1
        if verdict.reason == "low_quality":
            rules[verdict.detail] += 1
    return {
        "licence": source_licence(source) if source.reader else given_licence,
        "weight": source.weight,
        "n_pages": n_pages,
        "n_kept": n_kept,
        "n_bytes": n_bytes,
        "dropped": dict(dropped.most_common()),
        "low_quality_rules": dict(rules.most_common()),
    }
