from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.core.errors import CheckpointError, DataError, ShapeError
from puna.tokenizer import Tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=80)
"""All of Unicode but lone surrogates, and SentencePiece's sign for a space."""


def test_control_ids_are_llama_2s(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert tokenizer.vocab_size == 420
    assert tokenizer.pieces([0, 1, 2, 3, 13, 258]) == ["<unk>", "<s>", "</s>", "<0x00>", "<0x0A>", "<0xFF>"]


def test_bos_and_eos_only_when_asked(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The llama")
    assert tokenizer.encode("The llama", bos=True, eos=True) == [1, *ids, 2]
    assert tokenizer.encode("") == []
    assert tokenizer.encode("", bos=True) == [1]


def test_every_digit_is_its_own_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces(tokenizer.encode("2049 7"))[-6:] == ["2", "0", "4", "9", "▁", "7"]


@settings(deadline=None)
@given(text=TEXT)
def test_text_comes_back_unchanged(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text


@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
def test_batch_equals_one_by_one(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "<0x0A>", " ", "a", "\n", "▁"])).map("".join))
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not set(ids) & {0, 1, 2}
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_undecodable_bytes_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([3 + 0xFF, 3 + 0x41]) == "\ufffdA"


@pytest.mark.parametrize("ids", [[420], [-1], [5, 10**6]])
def test_foreign_ids_are_refused(tokenizer: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(ShapeError, match="from 0 to 419"):
        tokenizer.decode(ids)
    with pytest.raises(ShapeError):
        tokenizer.pieces(ids)


def test_unpaired_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode_batch(["fine", "a\ud800"])


def test_load_takes_a_folder_or_a_file(tokenizer: Tokenizer, model_file: Path) -> None:
    assert Tokenizer.load(model_file.parent).encode("apples") == tokenizer.encode("apples")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_truncated_file_is_refused(model_file: Path, tmp_path: Path, keep: int) -> None:
    broken = tmp_path / "tokenizer.model"
    broken.write_bytes(model_file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{keep} bytes"):
        Tokenizer.load(broken)


@pytest.mark.real
def test_llama_2_golden_ids(llama2: Tokenizer) -> None:
    """The first is the example in transformers' documentation of the Llama tokenizer."""
    assert llama2.vocab_size == 32_000
    assert llama2.encode("Hello this is a test", bos=True) == [1, 15043, 445, 338, 263, 1243]
    assert llama2.encode("\n") == [29871, 13]
