"""Filter metrics against labels, in closed form."""

import pytest

from puna.core.records import Document
from puna.pretraining_data.filters import Verdict
from puna.pretraining_data.truth import measure


def page(name: str, **truth: object) -> Document:
    return Document(id=name, text=f"text of {name}", source="s", meta={"truth": truth})


def test_unlabelled_pages_give_no_metrics() -> None:
    assert measure([Document(id="a", text="x", source="s")], [Verdict("en")]) == {}


def test_flags_and_languages() -> None:
    pages = [
        page("a", language="en"),
        page("b", language="de"),
        page("c", language="en", personal_information=True),
        page("d", language="en", personal_information=True),
        page("e", language="en"),
    ]
    verdicts = [
        Verdict("en"),
        Verdict("de", "language", "de"),
        Verdict("en", "personal_information"),
        Verdict("unknown"),
        Verdict("en", "personal_information"),
    ]
    metrics = measure(pages, verdicts)
    assert metrics["language_accuracy"] == pytest.approx(4 / 5)
    assert metrics["personal_information_precision"] == pytest.approx(1 / 2)
    assert metrics["personal_information_recall"] == pytest.approx(1 / 2)
    assert "low_quality_recall" not in metrics


def test_a_filter_is_measured_on_the_pages_that_reach_it() -> None:
    pages = [page("a", personal_information=True), page("b", personal_information=True)]
    verdicts = [Verdict("de", "language"), Verdict("en", "personal_information")]
    assert measure(pages, verdicts)["personal_information_recall"] == 1.0


def test_families_count_surplus_pages() -> None:
    """Family of three copies of a, one of which is kept instead of a; b falls for c, which is no copy."""
    pages = [
        page("a"),
        page("a1", near_duplicate_of="a"),
        page("a2", near_duplicate_of="a"),
        page("a3", exact_duplicate_of="a"),
        page("b"),
        page("c"),
    ]
    verdicts = [
        Verdict("en", "near_duplicate", "a1"),
        Verdict("en"),
        Verdict("en"),
        Verdict("en", "exact_duplicate", "a"),
        Verdict("en", "near_duplicate", "c"),
        Verdict("en"),
    ]
    metrics = measure(pages, verdicts)
    assert metrics["near_duplicate_precision"] == pytest.approx(1 / 2)
    assert metrics["near_duplicate_recall"] == pytest.approx(1 / 2)
    assert metrics["exact_duplicate_precision"] == metrics["exact_duplicate_recall"] == 1.0
