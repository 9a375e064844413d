import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from puna.core.artifacts import read_manifest
from puna.core.errors import ConfigError, DataError
from puna.core.progress import quiet
from puna.core.records import Dialog, Message, write_records
from puna.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer, train_tokenizer
from puna.tokenizer.train import SAMPLE_FILE, split_line

CHOICES = {
    "input",
    "input_format",
    "model_prefix",
    "vocab_size",
    "num_threads",
    "input_sentence_size",
    "shuffle_input_sentence",
}
"""Trainer fields that say what was read and how fast, not what a piece is."""


def model_proto(path: Path) -> sentencepiece_model_pb2.ModelProto:
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def test_same_text_same_bytes(corpus: list[str], model_file: Path, tmp_path: Path) -> None:
    train_tokenizer(iter(corpus), tmp_path / "again.model", TokenizerConfig(vocab_size=420))
    assert (tmp_path / "again.model").read_bytes() == model_file.read_bytes()


def test_settings_are_the_papers(model_file: Path) -> None:
    model = model_proto(model_file)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    assert trainer.model_type == trainer.BPE
    assert trainer.split_digits
    assert trainer.byte_fallback
    assert normalizer.name == "identity"
    assert normalizer.add_dummy_prefix
    assert not normalizer.remove_extra_whitespaces


@pytest.mark.real
def test_settings_are_those_inside_the_released_model(model_file: Path, real_data: Path) -> None:
    ours, released = (
        model_proto(path) for path in (model_file, real_data / "tokenizers" / "llama2" / "tokenizer.model")
    )
    for spec in ("trainer_spec", "normalizer_spec"):
        for field in getattr(released, spec).DESCRIPTOR.fields:
            if field.name not in CHOICES:
                values = [getattr(getattr(model, spec), field.name) for model in (ours, released)]
                assert values[0] == values[1], field.name


def test_too_large_a_vocabulary_names_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with pytest.raises(DataError, match=r"Set vocab_size to (\d+) or less") as caught:
        train_tokenizer(["a few words"], path, TokenizerConfig())
    assert not path.exists()
    largest = int(caught.value.fix.split()[3])
    train_tokenizer(["a few words"], path, TokenizerConfig(vocab_size=largest))
    assert Tokenizer.load(path).vocab_size == largest


def test_too_small_a_vocabulary_names_the_smallest(corpus: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set vocab_size to \d+ or more"):
        train_tokenizer(corpus, tmp_path / "tokenizer.model", TokenizerConfig(vocab_size=261))


@pytest.mark.parametrize("texts", [[], [""], ["\n \n"]])
def test_no_text_is_an_error(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(DataError, match="some text to learn from, got none"):
        train_tokenizer(texts, tmp_path / "tokenizer.model", TokenizerConfig(vocab_size=300))


def test_errors_of_the_source_come_through(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "some text"
        raise DataError(where="file, line 7", expected="JSON", got="{", fix="Correct it.")

    with pytest.raises(DataError, match="file, line 7"):
        train_tokenizer(broken(), tmp_path / "tokenizer.model", TokenizerConfig(vocab_size=300))
    with pytest.raises(DataError, match="valid Unicode"):
        train_tokenizer(["a\ud800"], tmp_path / "tokenizer.model", TokenizerConfig(vocab_size=300))


def test_long_lines_are_learned_from(tmp_path: Path) -> None:
    """SentencePiece alone drops lines above the limit, and any line that holds U+2585."""
    texts = ["zebra crossing " * 40, "quokka \N{LOWER FIVE EIGHTHS BLOCK} " * 10]
    config = TokenizerConfig(vocab_size=296, max_sentence_length_bytes=64)
    train_tokenizer(texts, tmp_path / "tokenizer.model", config)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.model")
    assert tokenizer.pieces(tokenizer.encode("zebra quokka")) == ["▁zebra", "▁quokka"]


@given(line=st.text(st.characters(exclude_categories=["Cs"])), limit=st.integers(10, 30))
def test_split_lines_keep_every_word(line: str, limit: int) -> None:
    parts = list(split_line(line.encode(), limit))
    assert all(len(part) <= limit for part in parts)
    texts = [part.decode() for part in parts]  # never cut inside a character
    assert "".join(texts).replace(" ", "") == (line if line.strip(" \t\n\r\v\f") else "").replace(" ", "")


def test_split_prefers_a_space() -> None:
    assert list(split_line(b"aaa bbb ccc ddd", 10)) == [b"aaa bbb", b"ccc ddd"]
    assert list(split_line(b"aaa bbb cc", 10)) == [b"aaa bbb cc"]


def write_inputs(folder: Path, corpus: list[str]) -> tuple[Path, Path]:
    data = folder / "data"
    data.mkdir()
    (data / SAMPLE_FILE).write_text("\n".join(corpus), encoding="utf-8")
    messages = (Message(role="user", content="Where?"), Message(role="assistant", content="Here."))
    dialogs = folder / "dialogs.jsonl"
    write_records(dialogs, [Dialog(id=str(n), messages=messages) for n in range(300)])
    return data, dialogs


def test_stage_leaves_a_whole_artifact(corpus: list[str], tmp_path: Path) -> None:
    data, dialogs = write_inputs(tmp_path, corpus)
    out = tmp_path / "run" / "tokenizer"
    config = TokenizerConfig(vocab_size=420, max_seq_len=512)
    manifest = build_tokenizer(config, data=data, dialogs=dialogs, out=out, seed=0, reporter=quiet())
    assert read_manifest(out) == manifest
    assert manifest.kind == "tokenizer"
    assert set(manifest.inputs) == {"data", "dialogs"}
    assert manifest.metrics["vocab_size"] == 420
    assert 1 < manifest.metrics["bytes_per_token"] < 16
    tokenizer = Tokenizer.load(out)
    assert manifest.metrics["inst_tokens"] == len(tokenizer.encode("[INST]")) == 3
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 512


def test_dialogs_teach_the_markers_only_when_wanted(corpus: list[str], tmp_path: Path) -> None:
    data, dialogs = write_inputs(tmp_path, corpus)
    counts = []
    for learns in (True, False):
        config = TokenizerConfig(vocab_size=400, learn_from_dialogs=learns)
        out = tmp_path / f"tokenizer-{learns}"
        build_tokenizer(config, data=data, dialogs=dialogs, out=out, seed=0, reporter=quiet())
        counts.append(len(Tokenizer.load(out).encode("[INST] Where? [/INST]")))
    assert counts[0] < counts[1]


def test_stage_names_what_is_missing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "audit.json").write_text("{}")
    with pytest.raises(DataError, match=SAMPLE_FILE):
        build_tokenizer(
            TokenizerConfig(), data=data, dialogs=None, out=tmp_path / "out", seed=0, reporter=quiet()
        )
    assert not (tmp_path / "out").exists()
