"""The filters in their order."""

from puna.core.records import Document
from puna.pretraining_data.filters import FilterConfig, Verdict, judge
from puna.pretraining_data.language import LanguageConfig
from puna.pretraining_data.quality import QualityConfig

SHORT = FilterConfig(quality=QualityConfig(min_words=5, min_stop_words=1, min_sentences=2))
ENGLISH = "the goat eats hay in the morning. it lives in the old barn near the river."
MAIL = "write to anna@farm.example or call 212-555-0143 at once. she will answer you in the evening."


def verdicts(texts: list[str], config: FilterConfig = SHORT, *, is_prose: bool = True) -> list[Verdict]:
    pages = [Document(id=str(n), text=text, source="s") for n, text in enumerate(texts)]
    return judge(pages, config, is_prose=lambda name: is_prose)


def test_each_filter_gives_its_reason() -> None:
    texts = [
        ENGLISH,
        "la vaca come hierba en el campo. los niños juegan con el caballo.",
        "the goat",
        MAIL,
        ENGLISH.upper(),
        ENGLISH.replace("old barn near", "old barn close by"),
    ]
    found = verdicts(
        texts, SHORT.model_copy(update={"dedup": SHORT.dedup.model_copy(update={"min_jaccard": 0.5})})
    )
    assert [(verdict.reason, verdict.detail) for verdict in found[:5]] == [
        (None, ""),
        ("language", "es"),
        ("low_quality", "few_words"),
        ("personal_information", "email, phone"),
        ("exact_duplicate", "0"),
    ]


def test_code_is_spared_the_rules_for_prose() -> None:
    code = ["def f(x):\n    return {x: 1}\n", MAIL]
    assert [verdict.reason for verdict in verdicts(code, is_prose=False)] == [None, "personal_information"]


def test_every_filter_can_be_switched_off() -> None:
    off = FilterConfig(
        language=LanguageConfig(keep=None), quality=None, personal_information=None, dedup=None
    )
    assert {verdict.reason for verdict in verdicts([MAIL, MAIL, "x", "der hund schläft."], off)} == {None}


def test_rude_pages_stay() -> None:
    """§4.1: no filter for toxicity, on purpose."""
    assert verdicts(["the hill folk are stupid and lazy. i say that to all of them."])[0].reason is None
