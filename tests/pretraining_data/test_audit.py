"""Counts of the audit, in closed form."""

import pytest

from puna.pretraining_data.audit import (
    AuditConfig,
    demographic_shares,
    language_shares,
    pronoun_shares,
    toxicity_proxy,
)


def test_pronouns_are_shares_of_documents() -> None:
    texts = ["She saw him.", "they are here", "I know it", "goats eat hay", "HERSELF"]
    assert pronoun_shares(texts) == {
        "gendered": 0.4,
        "she": 0.4,
        "he": 0.2,
        "unspecified": 0.2,
        "any_person": 0.8,
        "first_person": 0.2,
        "second_person": 0.0,
        "third_person": 0.8,
    }


def test_pronouns_match_whole_words() -> None:
    assert pronoun_shares(["the sheep's shed is theirs'"])["she"] == 0


def test_demographic_terms_are_shares_of_the_axis() -> None:
    texts = ["a female goat", "male and female", "hay", "grass"]
    table = demographic_shares(texts, {"sex": ("female", "male", "feminine")})
    assert table == {"sex": {"document_fraction": 0.5, "term_fractions": {"female": 1.0, "male": 0.5}}}


def test_languages_come_most_frequent_first_and_rare_ones_not() -> None:
    shares = language_shares(["en"] * 97 + ["de", "de", "fr"], min_fraction=0.02)
    assert list(shares.items()) == [("en", 0.97), ("de", 0.02)]


def test_toxicity_proxy_is_the_mean_over_lines() -> None:
    proxy = toxicity_proxy(["you idiot\nhello", "a\nb\nc\nstupid", "fine"], AuditConfig().toxic_terms)
    assert proxy == {"mean_score": pytest.approx(0.25), "fraction_at_least_half": pytest.approx(1 / 3)}


def test_an_empty_corpus_has_zero_shares() -> None:
    assert set(pronoun_shares([]).values()) == {0.0}
    assert language_shares([], 0.1) == {}
