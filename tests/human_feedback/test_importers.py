"""Preference files as comparisons."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.conversations import Unusable
from puna.core.errors import DataError
from puna.core.progress import quiet
from puna.core.records import RATINGS, Comparison, Message, read_records
from puna.human_feedback.importers import (
    PreferenceImportConfig,
    PreferenceSourceConfig,
    grade_strengths,
    import_preferences,
    read_alpaca_eval,
    read_hh_rlhf,
    read_trl,
)
from puna.tokenizer import TokenizerConfig, train_tokenizer

HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: {}"
words = st.text("abc \n", min_size=1).filter(lambda text: text.strip() and "\n\n" not in text)


def test_hh_dialogues_share_their_prompt() -> None:
    pair = read_hh_rlhf({"chosen": HH.format("good"), "rejected": HH.format("bad")})
    assert [message.role for message in pair.prompt] == ["user", "assistant", "user"]
    assert (pair.chosen, pair.rejected, pair.strength) == ("good", "bad", None)


@given(st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0), words)
def test_hh_text_survives_the_round_trip(texts: list[str], other: str) -> None:
    speakers = ("Human", "Assistant")
    text = "".join(f"\n\n{speakers[i % 2]}: {turn.strip()}" for i, turn in enumerate(texts))
    shared = text[: text.rindex("\n\nAssistant:")]
    pair = read_hh_rlhf({"chosen": text, "rejected": f"{shared}\n\nAssistant: {other}"})
    assert [message.content for message in pair.prompt] == [turn.strip() for turn in texts[:-1]]
    assert (pair.chosen, pair.rejected) == (texts[-1].strip(), other.strip())


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (HH.format(""), "empty_turn"),
        ("\n\nHuman: hi\n\nHuman: hi\n\nAssistant: a", "turns_out_of_order"),
        ("\n\nHuman: other\n\nAssistant: a", "different_prompts"),
        ("Human: hi", "text_before_first_turn"),
        (None, "no_dialogue"),
    ],
)
def test_unusable_hh_rows_say_why(chosen: str | None, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read_hh_rlhf({"chosen": chosen, "rejected": HH.format("b")})


def eval_row(preference: float | None) -> dict[str, Any]:
    return {"instruction": "who?", "output_1": "one", "output_2": "two", "preference": preference,
            "generator_1": "base", "generator_2": "new"}  # fmt: skip


def test_alpaca_eval_prefers_output_two_above_the_middle() -> None:
    first, second = read_alpaca_eval(eval_row(1.2)), read_alpaca_eval(eval_row(1.8))
    assert (first.chosen, second.chosen) == ("one", "two")
    assert first.strength == pytest.approx(math.log(4))
    assert second.strength == pytest.approx(math.log(4))
    assert second.meta == {"chosen_by": "new", "rejected_by": "base"}
    assert math.isfinite(read_alpaca_eval(eval_row(2.0)).strength or math.nan)


@pytest.mark.parametrize(
    ("preference", "reason"), [(1.5, "tie"), (None, "no_preference"), (0.5, "no_preference")]
)
def test_alpaca_eval_without_a_preference_is_unusable(preference: float | None, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read_alpaca_eval(eval_row(preference))


def test_trl_columns_in_all_their_shapes() -> None:
    user = {"role": "user", "content": "who?"}
    yes, no = ({"role": "assistant", "content": text} for text in ("yes", "no"))
    rows = [
        {"prompt": "who?", "chosen": "yes", "rejected": "no"},
        {"prompt": [user], "chosen": [yes], "rejected": [no]},
        {"chosen": [user, yes], "rejected": [user, no]},
        {"instruction": "who?", "input": "", "chosen": "yes", "rejected": "no"},
        {"conversations": [{"from": "human", "value": "who?"}], "chosen": yes, "rejected": no},
    ]
    pairs = [read_trl(row) for row in rows]
    assert pairs == [pairs[0]] * len(rows)
    assert pairs[0].prompt == (Message(role="user", content="who?"),)


def test_ratings_are_quarters_of_the_strengths() -> None:
    assert grade_strengths([1, 2, 3, 4]) == list(RATINGS[::-1])
    assert grade_strengths([]) == []


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=60))
def test_stronger_is_never_rated_weaker(strengths: list[float]) -> None:
    ratings = grade_strengths(strengths)
    ordered = [RATINGS.index(rating) for _, rating in sorted(zip(strengths, ratings, strict=True))]
    assert ordered == sorted(ordered, reverse=True)
    assert len({(s, r) for s, r in zip(strengths, ratings, strict=True)}) == len(set(strengths))


def config(path: Path, reader: Any, **settings: Any) -> PreferenceImportConfig:
    source = PreferenceSourceConfig(name="toy", reader=reader, path=str(path), guideline="safety")
    return PreferenceImportConfig(sources=(source,), **settings)


def test_import_accounts_for_every_row_and_splits_by_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n % 50}", "chosen": f"c{n}", "rejected": f"r{n}"} for n in range(200)] + [
        {"prompt": "p", "chosen": "same", "rejected": "same "},
        {"prompt": "p0", "chosen": "c0", "rejected": "r0"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = import_preferences(
        config(path, "trl", test_fraction=0.2), out=tmp_path / "out", seed=0, reporter=quiet()
    )
    assert manifest.kind == "preferences"
    account = manifest.metrics["sources"]["toy"]
    assert (account["n_rows"], account["n_kept"]) == (202, 200)
    assert account["dropped"] == {"duplicate": 1, "equal_answers": 1}
    train, test = (
        list(read_records(tmp_path / "out" / f"{side}.jsonl", Comparison)) for side in ("train", "test")
    )
    assert len(train) + len(test) == 200
    assert test
    assert {c.prompt for c in train}.isdisjoint({c.prompt for c in test})
    assert {(c.rating, c.safety, c.guideline) for c in train} == {("better", None, "safety")}
    assert {c.origin for c in (*train, *test)} == {"open"}
    assert manifest.metrics["origins"] == {"open": 200}
    assert manifest.metrics["ratings"]["better"] == 200


def test_a_changed_file_or_tokenizer_changes_the_artifact(tmp_path: Path) -> None:
    """Each of several: a fingerprint of the first one only would keep old pairs."""
    paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for path in paths:
        path.write_text(json.dumps({"prompt": path.stem, "chosen": "good", "rejected": "bad"}) + "\n")
    train_tokenizer(["the llama eats oats"] * 9, tmp_path / "a.model", TokenizerConfig(vocab_size=275))
    sources = [PreferenceSourceConfig(name=path.stem, reader="trl", path=str(path)) for path in paths]

    def imported(**given: Path):
        settings = PreferenceImportConfig(sources=tuple(sources))
        return import_preferences(settings, out=tmp_path / "out", seed=0, **given)

    before = imported()
    assert before.inputs.keys() == {"first", "second"}
    assert imported() == before
    for path in paths:
        path.write_text(path.read_text() * 2)
        after = imported()
        assert after.fingerprint != before.fingerprint, path.name
        before = after
    assert imported(tokenizer=tmp_path / "a.model").fingerprint != before.fingerprint


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n' * 6 + "{broken\n")
    with pytest.raises(DataError, match="line 7"):
        import_preferences(config(path, "trl"), out=tmp_path / "out", seed=0, reporter=quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.real
def test_real_files_import(tmp_path: Path) -> None:
    sources = (
        PreferenceSourceConfig(
            name="alpaca_eval",
            reader="alpaca_eval",
            path="${PUNA_DATA}/preferences/alpaca_eval_graded/pairs.jsonl.gz",
        ),
        PreferenceSourceConfig(
            name="hh_harmless",
            reader="hh_rlhf",
            path="${PUNA_DATA}/preferences/hh_harmless/harmless_base_test_first1600.jsonl.gz",
            guideline="safety",
        ),
    )
    manifest = import_preferences(
        PreferenceImportConfig(sources=sources), out=tmp_path / "out", seed=0, reporter=quiet()
    )
    accounts = manifest.metrics["sources"]
    assert (accounts["alpaca_eval"]["n_rows"], accounts["hh_harmless"]["n_rows"]) == (9659, 1600)
    assert all(account["n_kept"] > 0.98 * account["n_rows"] for account in accounts.values())
    ratings = manifest.metrics["ratings"]
    quarter = accounts["alpaca_eval"]["n_kept"] / 4
    assert all(abs(ratings[r] - quarter) < 20 for r in RATINGS if r != "better")
