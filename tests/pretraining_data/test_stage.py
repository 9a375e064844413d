"""The data stage from pages to files, with bad input and with the speed it promises."""

import json
import random
import sys
from pathlib import Path
from types import FrameType

import pytest
from pydantic import ValidationError

from puna.core.errors import ConfigError, DataError
from puna.core.progress import quiet
from puna.core.records import Document, read_records, write_records
from puna.pretraining_data import DataConfig, SourceConfig, build_corpus
from puna.pretraining_data.filters import FilterConfig, judge
from puna.pretraining_data.quality import QualityConfig
from puna.pretraining_data.stage import Dropped

SHORT = FilterConfig(
    quality=QualityConfig(
        min_words=5,
        min_stop_words=1,
        min_sentences=2,
        max_top_ngram_fractions={},
        max_duplicate_ngram_fractions={},
    )
)
CONFIG = DataConfig(sources=(SourceConfig(name="facts", weight=2.5),), filters=SHORT, validation_fraction=0.1)


def sentences(r: random.Random, n: int) -> str:
    words = [f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu") for b in ("rn", "lt", "mp", "st", "nd")]
    return " ".join(f"the {' '.join(r.choices(words, k=6))} is near the {r.choice(words)}." for _ in range(n))


def corpus(n: int, seed: int = 0) -> list[Document]:
    r = random.Random(seed)
    truth = {"truth": {"language": "en"}}
    return [
        Document(id=f"d{i}", text=sentences(r, 6), source=("facts", "tales")[i % 2], meta=truth)
        for i in range(n)
    ]


MAX_CALLS_PER_PAGE = 6_000
"""Half as many again as are made now."""

ENGLISH_OFF = SHORT.model_copy(update={"language": SHORT.language.model_copy(update={"keep": None})})
"""The made-up words of this file are no language."""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    pages = corpus(60)
    first = pages[0]
    pages += [
        Document(id="copy", text=first.text, source="facts", meta={"truth": {"exact_duplicate_of": "d0"}}),
        Document(
            id="near",
            text=f"{pages[1].text} read more here.",
            source="tales",
            meta={"truth": {"near_duplicate_of": "d1"}},
        ),
        Document(
            id="mail",
            text="the page of anna@farm.example is here. call her on 212-555-0143 now.",
            source="tales",
            meta={"truth": {"personal_information": True}},
        ),
        Document(id="junk", text="click", source="tales", meta={"truth": {"low_quality": True}}),
    ]
    write_records(tmp_path / "raw" / "documents.jsonl.zst", pages)
    (tmp_path / "raw" / "SOURCE.txt").write_text("licence: CC0")
    return tmp_path / "raw" / "documents.jsonl.zst"


def test_every_page_is_kept_or_dropped_with_a_reason(documents: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"filters": ENGLISH_OFF})
    manifest = build_corpus(config, documents=documents, out=tmp_path / "data", seed=0, reporter=quiet())
    train = list(read_records(tmp_path / "data" / "documents.jsonl.zst", Document))
    validation = list(read_records(tmp_path / "data" / "validation.jsonl.zst", Document))
    dropped = list(read_records(tmp_path / "data" / "dropped.jsonl", Dropped))
    assert {page.id for page in train}.isdisjoint(page.id for page in validation)
    assert len(train) + len(validation) == 60
    assert {(page.id, page.reason) for page in dropped} == {
        ("copy", "exact_duplicate"),
        ("near", "near_duplicate"),
        ("mail", "personal_information"),
        ("junk", "low_quality"),
    }
    assert {page.source for page in validation} == {"facts", "tales"}
    for name in ("near_duplicate", "personal_information", "low_quality", "exact_duplicate"):
        assert manifest.metrics[f"{name}_precision"] == manifest.metrics[f"{name}_recall"] == 1.0
    sample = (tmp_path / "data" / "tokenizer_sample.txt").read_text().splitlines()
    assert sorted(sample) == sorted(page.text for page in train)


def test_the_audit_accounts_for_every_source(documents: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"filters": ENGLISH_OFF})
    build_corpus(config, documents=documents, out=tmp_path / "data", seed=0, reporter=quiet())
    audit = json.loads((tmp_path / "data" / "audit.json").read_text())
    facts, tales = audit["sources"]["facts"], audit["sources"]["tales"]
    assert (facts["weight"], tales["weight"]) == (2.5, 1.0)
    assert facts["licence"] == tales["licence"] == "licence: CC0"
    assert (facts["n_pages"], facts["n_kept"], facts["dropped"]) == (31, 30, {"exact_duplicate": 1})
    assert tales["n_pages"] == tales["n_kept"] + sum(tales["dropped"].values())
    assert tales["low_quality_rules"] == {"few_words": 1}
    assert audit["n_pages"] == 64
    assert sum(audit["languages_kept"].values()) == pytest.approx(1)
    assert {"pronouns", "demographics", "toxicity_proxy"} <= audit.keys()


def test_the_same_seed_gives_the_same_bytes_and_another_another_split(
    documents: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"filters": ENGLISH_OFF})
    files = [
        build_corpus(config, documents=documents, out=tmp_path / name, seed=seed, reporter=quiet()).files
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert files[0] == files[1]
    assert files[0]["validation.jsonl.zst"] != files[2]["validation.jsonl.zst"]


def test_sources_and_documents_join(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("the goat eats hay. it lives in the barn.")
    source = SourceConfig(name="more", reader="plain_text", path=str(tmp_path / "more"))
    config = DataConfig(sources=(source,), filters=ENGLISH_OFF)
    manifest = build_corpus(config, documents=documents, out=tmp_path / "data", seed=0, reporter=quiet())
    assert manifest.metrics["n_pages"] == 65
    assert set(manifest.inputs) == {"documents", "more"}


def test_a_changed_file_of_a_source_changes_the_artifact(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    names = ("a.txt", "b.txt")
    for name in names:
        (tmp_path / "more" / name).write_text(f"the goat of {name} eats hay. it lives in the barn.")
    source = SourceConfig(name="more", reader="plain_text", path=str(tmp_path / "more"))
    config = DataConfig(sources=(source,), filters=ENGLISH_OFF)

    def built():
        return build_corpus(config, documents=documents, out=tmp_path / "data", seed=0)

    before = built()
    assert built() == before
    for name in names:
        (tmp_path / "more" / name).write_text(f"the hen of {name} eats corn. it lives in the barn.")
        after = built()
        assert after.fingerprint != before.fingerprint, name
        before = after
    write_records(documents, [Document(id="new", text="the cow eats hay in the barn.", source="tales")])
    assert built().fingerprint != before.fingerprint


def test_a_source_may_not_hide_the_documents(documents: Path, tmp_path: Path) -> None:
    source = SourceConfig(name="documents", reader="plain_text", path=str(documents.parent / "SOURCE.txt"))
    with pytest.raises(ConfigError, match="a name of its own"):
        build_corpus(DataConfig(sources=(source,)), documents=documents, out=tmp_path / "data", seed=0)


def test_nothing_in_and_nothing_kept_are_data_errors(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="at least one page"):
        build_corpus(CONFIG, documents=empty, out=tmp_path / "data", seed=0, reporter=quiet())
    write_records(empty, [Document(id=str(n), text="click", source="s") for n in range(3)])
    with pytest.raises(DataError, match=r"all 3 dropped; 3 by low_quality: few_words"):
        build_corpus(CONFIG, documents=empty, out=tmp_path / "data", seed=0, reporter=quiet())
    assert not (tmp_path / "data").exists()


def test_bad_lines_and_repeated_ids_are_named(documents: Path, tmp_path: Path) -> None:
    line = '{"id": "%s", "text": "the goat", "source": "s"}\n'
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(line % n for n in range(6)) + '{"id": 7}\n')
    with pytest.raises(DataError, match=r"raw\.jsonl, line 7"):
        build_corpus(CONFIG, documents=path, out=tmp_path / "data", seed=0, reporter=quiet())
    path.write_text(line % "same" * 2)
    with pytest.raises(DataError, match="'same' twice"):
        build_corpus(CONFIG, documents=path, out=tmp_path / "data", seed=0, reporter=quiet())
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        build_corpus(
            CONFIG, documents=tmp_path / "absent.jsonl", out=tmp_path / "data", seed=0, reporter=quiet()
        )


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="same name"):
        DataConfig(sources=(SourceConfig(name="a"), SourceConfig(name="a")))


def n_calls(pages: list[Document]) -> int:
    """Calls that judging these pages makes, into Python and C alike: work that no busy machine changes."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        verdicts = judge(pages, FilterConfig(quality=SHORT.quality), is_prose=lambda name: True)
    finally:
        sys.setprofile(None)
    assert len(verdicts) == len(pages)
    return count


def test_the_work_for_a_page_has_a_bound() -> None:
    """A page of 60 words; with the checks that tests put on every call, which are most of them."""
    assert n_calls(corpus(200)) / 200 < MAX_CALLS_PER_PAGE


def test_four_times_the_pages_are_at_most_five_times_the_work() -> None:
    """Finding duplicates must not compare every two pages."""
    pages = corpus(1_200)
    assert n_calls(pages) < 5 * n_calls(pages[:300])
