"""Words are where SentencePiece cannot join across, and the cache forgets without changing an id."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from puna.core.errors import DataError
from puna.tokenizer import Tokenizer, sentencepiece_backend, word_cache
from puna.tokenizer.word_cache import WordCache, split_is_exact, words


def processor(sentences: list[str], **options: object) -> SentencePieceProcessor:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, minloglevel=2, hard_vocab_limit=False,
        **({"model_type": "bpe", "vocab_size": 300, "byte_fallback": True, "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False} | options),
    )  # fmt: skip
    return SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", ["a"]),
        (" ", ["  "]),
        ("a b", ["a", "b"]),
        ("a  b", ["a", "  b"]),
        (" a", ["  a"]),
        ("a ", ["a", ""]),
        ("a\nb\n", ["a", "\nb", "\n"]),
        ("\n", ["", "\n"]),
        ("a \n  b", ["a", "", "\n", "  b"]),
        ("a▁b", ["a", "b"]),
    ],
)
def test_words_are_cut_before_spaces_and_line_ends(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(text=st.text(alphabet="ab \n▁", max_size=30))
def test_words_hold_the_whole_text(text: str) -> None:
    """Put back together with the space that each leaves out, they are the text after its dummy prefix."""
    joined = "".join(word if word.startswith(("\n", "  ")) else f" {word}" for word in words(text))
    assert joined == (" " + text.replace("▁", " ") if text else "")


def test_a_full_cache_forgets_and_stays_exact(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = WordCache(SentencePieceProcessor(model_proto=tokenizer._backend.model))  # type: ignore[union-attr]
    monkeypatch.setattr(word_cache, "MAX_CHARS", 50)
    texts = [f"the llama number {n} eats apples" for n in range(60)]
    assert [cache.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
    assert cache.encode_batch(texts) == tokenizer.encode_batch(texts)
    for n in range(30):
        cache.encode(f"once more {n}")
    assert len(cache) < 60


@pytest.mark.parametrize("n_cores", [1, 2, 5])
def test_threads_that_share_a_batch_leave_no_text_out(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, n_cores: int
) -> None:
    monkeypatch.setattr(sentencepiece_backend, "MIN_SHARED_CHARS", 10)
    monkeypatch.setattr(sentencepiece_backend, "_n_cores", lambda: n_cores)
    texts = [f"llama {n} of  the herd\n" * (n % 7) for n in range(203)]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode_batch([*texts, "a\ud800", *texts])


def test_models_that_join_across_spaces_are_not_split() -> None:
    sentences = ["new york is a new york thing"] * 50
    assert split_is_exact(processor(sentences))
    assert not split_is_exact(processor(sentences, split_by_whitespace=False))
    assert not split_is_exact(processor(sentences, add_dummy_prefix=False))
    assert not split_is_exact(
        processor(sentences, normalization_rule_name="nfkc", remove_extra_whitespaces=True)
    )
    assert not split_is_exact(processor(sentences, treat_whitespace_as_suffix=True))
    assert not split_is_exact(processor(sentences, model_type="unigram"))


def test_user_defined_symbols_of_the_template_stay_text(tmp_path) -> None:
    """SentencePiece finds such pieces in any text; the model's own chat template makes them control tokens."""
    found = processor(["a llama <|end|> b"] * 50, user_defined_symbols=["<|end|>", "<|other|>"])
    (tmp_path / "tokenizer.model").write_bytes(found.serialized_model_proto())
    end = found.piece_to_id("<|end|>")
    assert end in Tokenizer.load(tmp_path).encode("a <|end|>")
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content + '<|end|>' }}")
    guarded = Tokenizer.load(tmp_path)
    assert end not in guarded.encode("a <|end|>") + guarded.encode_batch(["a <|end|>"])[0]
    assert guarded.encode("a llama") == found.encode("a llama")
    assert guarded.decode(guarded.encode("a <|end|>")) == "a <|end|>"
