"""How well the filters did, where pages carry their true labels in meta['truth'] (as the sandbox's do).

Truth keys: language; near_duplicate_of and exact_duplicate_of, the id of the copied page; and the flags
personal_information and low_quality. A missing key is false. Every filter is measured on the pages that reach
it, because what an earlier filter dropped it could not judge.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from puna.core.records import Document
from puna.pretraining_data.dedup import normalise
from puna.pretraining_data.filters import REASONS, Reason, Verdict

__all__ = ["measure"]

Labelled = tuple[Document, Verdict]


def measure(documents: Sequence[Document], verdicts: Sequence[Verdict]) -> dict[str, float | int]:
    """Language accuracy, and precision and recall of each filter; absent where nothing is labelled.

    A near duplicate is dropped rightly when the page kept instead is of the same family of copies. Recall is
    over the surplus pages: every family should leave one page.
    """
    labelled = [pair for pair in zip(documents, verdicts, strict=True) if "truth" in pair[0].meta]
    if not labelled:
        return {}
    languages = [
        (_truth(page)["language"], verdict.language)
        for page, verdict in labelled
        if "language" in _truth(page)
    ]
    n_known = sum(true == found for true, found in languages)
    return {
        "n_labelled": len(labelled),
        **({"language_accuracy": n_known / len(languages)} if languages else {}),
        **_flag_metrics(labelled, "low_quality"),
        **_flag_metrics(labelled, "personal_information"),
        **_duplicate_metrics(labelled, "exact_duplicate"),
        **_duplicate_metrics(labelled, "near_duplicate"),
    }


def _truth(document: Document) -> dict:
    return document.meta["truth"]


def _reaching(labelled: Sequence[Labelled], reason: Reason) -> Iterator[Labelled]:
    """Pages that no earlier filter dropped."""
    earlier = REASONS[: REASONS.index(reason)]
    return (pair for pair in labelled if pair[1].reason not in earlier)


def _flag_metrics(labelled: Sequence[Labelled], reason: Reason) -> dict[str, float]:
    pages = list(_reaching(labelled, reason))
    n_true = sum(bool(_truth(page).get(reason)) for page, _ in pages)
    dropped = [bool(_truth(page).get(reason)) for page, verdict in pages if verdict.reason == reason]
    return _rates(reason, n_right=sum(dropped), n_dropped=len(dropped), n_true=n_true)


def _duplicate_metrics(labelled: Sequence[Labelled], reason: Reason) -> dict[str, float]:
    documents = [page for page, _ in labelled]
    family = _families(documents, ("exact_duplicate_of", "near_duplicate_of"))
    surplus_of = family if reason == "near_duplicate" else _families(documents, ("exact_duplicate_of",))
    pages = list(_reaching(labelled, reason))
    sizes = Counter(surplus_of[page.id] for page, _ in pages)
    dropped = [(page.id, verdict.detail) for page, verdict in pages if verdict.reason == reason]
    n_right = sum(family[page] == family.get(kept) for page, kept in dropped)
    return _rates(
        reason, n_right=n_right, n_dropped=len(dropped), n_true=sum(size - 1 for size in sizes.values())
    )


def _families(documents: Sequence[Document], keys: Sequence[str]) -> dict[str, str]:
    """Each page's family, by the name of one member: pages joined by these labels, or of the same text."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    for page in documents:
        labels = [str(_truth(page)[key]) for key in keys if _truth(page).get(key)]
        for other in (*labels, f"text of {normalise(page.text)}"):
            parents[root(page.id)] = root(other)
    return {page.id: root(page.id) for page in documents}


def _rates(name: str, *, n_right: int, n_dropped: int, n_true: int) -> dict[str, float]:
    """Precision where something was dropped, recall where something should have been."""
    precision = {f"{name}_precision": n_right / n_dropped} if n_dropped else {}
    return precision | ({f"{name}_recall": n_right / n_true} if n_true else {})
