"""The data audit: what came in, what stayed, what was dropped and why; languages, pronouns, terms (Tables 9, 10)."""

from collections.abc import Mapping
from typing import Any

from puna.reporting.blocks import DASH, Block, Cell, Section, Table, percent, plain
from puna.reporting.paper_numbers import LANGUAGES, PRONOUNS, TERMS
from puna.reporting.run_folder import RunFolder

__all__ = ["data_audit", "data_numbers"]

_FILTERS = ("low_quality", "personal_information", "exact_duplicate", "near_duplicate")
MAX_LANGUAGES = 14


def data_numbers(run: RunFolder) -> dict[str, float]:
    """How well the filters did, where the input carries its true labels as the sandbox's does."""
    names = [
        "language_accuracy",
        *(f"{name}_{what}" for name in _FILTERS for what in ("precision", "recall")),
    ]
    found = [artifact.metrics for artifact in run.of_kind("pretraining_data")]
    return {name: metrics[name] for metrics in found for name in names if metrics.get(name) is not None}


def data_audit(run: RunFolder) -> Section:
    """Rows, licence, kept and dropped of every input; the filters' precision and recall; Tables 9a, 9b and 10."""
    head = ("data", "Data audit", "Sections 2.1 and 4.1, Tables 9 and 10")
    accounts = _accounts(run)
    if not accounts:
        return Section.absent(*head, "no data has been read yet")
    blocks: list[Block] = [_sources(rows, what) for what, rows in accounts.items()]
    audits = [artifact.document("audit.json") for artifact in run.of_kind("pretraining_data")]
    blocks += _measured(data_numbers(run))
    for audit in audits:
        tables = (_languages(audit), _pronouns(audit), _terms(audit))
        blocks += [table for table in tables if table.rows]
    return Section(
        *head, tuple(blocks), {"measures": data_numbers(run), "inputs": accounts, "audits": audits}
    )


def _accounts(run: RunFolder) -> dict[str, dict[str, Any]]:
    """By what the inputs are for: each source's rows in, rows kept, reasons and licence."""
    pages: dict[str, Any] = {}
    for artifact in run.of_kind("pretraining_data"):
        pages |= artifact.document("audit.json").get("sources", {})
    accounts = {"Pages for pretraining": pages}
    for kind, what in (("dialogs", "Dialogs for fine-tuning"), ("preferences", "Comparisons")):
        for artifact in run.of_kind(kind):
            accounts[what] = accounts.get(what, {}) | artifact.metrics.get("sources", {})
    return {what: rows for what, rows in accounts.items() if rows}


def _sources(sources: Mapping[str, Any], what: str) -> Table:
    reasons = sorted({reason for found in sources.values() for reason in found.get("dropped", {})})
    rows = tuple(
        (
            Cell(name),
            _count(found.get("n_pages", found.get("n_rows"))),
            *(_count(found.get("dropped", {}).get(reason, 0)) for reason in reasons),
            _count(found.get("n_kept")),
            Cell(str(found.get("licence") or DASH)),
        )
        for name, found in sources.items()
    )
    columns = ("Source", "read", *(reason.replace("_", " ") for reason in reasons), "kept", "licence")
    return Table(f"{what} by source: read, dropped by reason, kept.", columns, rows)


def _count(value: Any) -> Cell:
    return plain(value, digits=0) if isinstance(value, int | float) else Cell(DASH)


def _measured(measures: Mapping[str, float]) -> list[Table]:
    if not measures:
        return []
    names = [name for name in _FILTERS if f"{name}_precision" in measures or f"{name}_recall" in measures]
    rows = [
        (
            Cell(name.replace("_", " ")),
            *(percent(measures.get(f"{name}_{what}")) for what in ("precision", "recall")),
        )
        for name in names
    ]
    language = percent(measures.get("language_accuracy")).text
    caption = (
        f"Filters against the planted truth, each on the pages that reach it. Languages right: {language}."
    )
    return [Table(caption, ("Filter", "Precision", "Recall"), tuple(rows))]


def _languages(audit: Mapping[str, Any]) -> Table:
    shares = sorted(audit.get("languages_read", {}).items(), key=lambda pair: -pair[1])[:MAX_LANGUAGES]
    rows = ((Cell(n), plain(LANGUAGES.get(n), digits=2, unit="%"), percent(x, digits=2)) for n, x in shares)
    caption = "Languages of the pages as read (Table 10); the paper's corpus is the web's."
    return Table(caption, ("Language", "Paper", "This run"), tuple(rows))


def _pronouns(audit: Mapping[str, Any]) -> Table:
    shares = audit.get("pronouns", {}).items()
    rows = (
        (Cell(n.replace("_", " ")), plain(PRONOUNS.get(n), digits=2, unit="%"), percent(x, digits=2))
        for n, x in shares
    )
    return Table(
        "English pages with such a pronoun (Table 9a).", ("Pronouns", "Paper", "This run"), tuple(rows)
    )


def _terms(audit: Mapping[str, Any]) -> Table:
    axes = {
        axis: found for axis, found in audit.get("demographics", {}).items() if found["document_fraction"]
    }
    rows = (
        (
            Cell(axis.replace("_", " ")),
            plain(TERMS.get(axis), digits=2, unit="%"),
            percent(found["document_fraction"], digits=2),
            Cell(", ".join(f"{term} {100 * x:.0f} %" for term, x in found["term_fractions"].items())),
        )
        for axis, found in axes.items()
    )
    columns = ("Axis", "Paper", "This run", "of those, with the term")
    return Table("English pages that mention an axis of identity (Table 9b).", columns, tuple(rows))
