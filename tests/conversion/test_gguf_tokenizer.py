"""A tokenizer goes through a GGUF file and comes back with the same tokens, template and control ids."""

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import gguf_files
from puna.conversion.byte_level import CUTS, cut_of
from puna.conversion.folder_vocabulary import folder_vocabulary
from puna.conversion.gguf_file import read_gguf
from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_tokenizer import write_tokenizer
from puna.conversion.gguf_write import write_gguf
from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

TEXT = [
    "The puna is the high grassland where llamas are raised, 3,400 m above the sea.",
    "It's cold at night; they've thick wool. We'd  12 llamas in 1998 and 1234 in 2024!",
    "Äpfel und Öl kosten 2½ Soles — día y noche.\n\n\tEl niño duerme.  ¿Dónde?",
] * 20
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
HERE = Path("here")
Metadata = Mapping[str, Any]


def model_with(n_tokens: int) -> ModelConfig:
    return ModelConfig(
        dim=8, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=n_tokens, hidden_dim=6, max_seq_len=16
    )


def through_gguf(
    tokenizer: Tokenizer | Path, folder: Path, n_tokens: int
) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer that a written file holds, and the file's settings."""
    config = model_with(n_tokens)
    path = folder / "model.gguf"
    source = gguf_files.MemorySource(config, gguf_files.random_values(config))
    source.tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer)
    write_gguf(source, path, dtype="f32")
    back = GGUFSource(path)
    assert back.tokenizer is not None
    return back.tokenizer, dict(read_gguf(path).metadata)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    train_tokenizer(TEXT, path, TokenizerConfig(vocab_size=330, character_coverage=0.98))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def after_gguf(sentencepiece: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return through_gguf(sentencepiece, tmp_path_factory.mktemp("gguf"), sentencepiece.vocab_size)[0]


@given(st.text())
def test_a_sentencepiece_model_gives_the_same_ids(
    sentencepiece: Tokenizer, after_gguf: Tokenizer, text: str
) -> None:
    ids = sentencepiece.encode(text, bos=True, eos=True)
    assert after_gguf.encode(text, bos=True, eos=True) == ids
    assert after_gguf.decode(ids) == sentencepiece.decode(ids)


def test_every_piece_score_and_kind_survives(sentencepiece: Tokenizer, tmp_path: Path) -> None:
    """Read by sentencepiece's own description of its format."""
    sentencepiece.save(tmp_path, max_seq_len=16)
    _, metadata = through_gguf(tmp_path, tmp_path, sentencepiece.vocab_size)
    (tmp_path / "back").mkdir()
    write_tokenizer(metadata, tmp_path / "back", where=HERE)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((tmp_path / "tokenizer.model").read_bytes())
    back = sentencepiece_model_pb2.ModelProto()
    back.ParseFromString((tmp_path / "back" / "tokenizer.model").read_bytes())
    assert [(p.piece, p.score, p.type) for p in back.pieces] == [
        (p.piece, p.score, p.type) for p in proto.pieces
    ]
    for field in ("model_type", "vocab_size", "byte_fallback", "unk_id", "bos_id", "eos_id", "pad_id"):
        assert getattr(back.trainer_spec, field) == getattr(proto.trainer_spec, field)
    for field in ("name", "add_dummy_prefix", "remove_extra_whitespaces"):
        assert getattr(back.normalizer_spec, field) == getattr(proto.normalizer_spec, field)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    ours = json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
    assert metadata["tokenizer.chat_template"] == ours


def byte_level_folder(folder: Path, cut: str, *, bos: bool = False) -> FastTokenizer:
    """A tokenizer.json with control tokens, as transformers would find it."""
    fast = FastTokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    fast.pre_tokenizer = CUTS[cut]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(TEXT, trainer)
    fast.decoder = decoders.ByteLevel()
    if bos:
        fast.post_processor = processors.TemplateProcessing(
            single="<|im_start|>:0 $A:0", special_tokens=[("<|im_start|>", 1)]
        )
    fast.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return fast


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "llama-bpe", "default"])
@pytest.mark.parametrize("bos", [True, False])
def test_a_byte_level_bpe_gives_the_same_ids(tmp_path: Path, cut: str, bos: bool) -> None:
    fast = byte_level_folder(tmp_path, cut, bos=bos)
    back, metadata = through_gguf(tmp_path, tmp_path, fast.get_vocab_size())
    assert metadata["tokenizer.ggml.pre"] == cut
    assert metadata["tokenizer.ggml.add_bos_token"] is bos
    assert metadata["tokenizer.chat_template"] == TEMPLATE
    assert (back.bos_id, back.eos_id, back.vocab_size) == (1, 2, fast.get_vocab_size())
    lines = [*TEXT[:3], "  12", "a   b\n\n c", "1234567", "日本 ½²", "'S'll", " \t\r\n x"]
    for line in lines:
        assert back.encode(line) == fast.encode(line, add_special_tokens=False).ids, line
        assert back.decode(back.encode(line)) == line
    (tmp_path / "again").mkdir()
    write_tokenizer(metadata, tmp_path / "again", where=HERE)
    again = FastTokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    text = "<|im_start|>user\nHi 99<|im_end|>"
    assert (
        again.encode(text).ids == fast.encode(text).ids
    )  # control tokens and <s> as other software takes them


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("gpt-2", ["a", "Ġ", "Ġ1234", "ĠIt", "'s", '!"$']),
        ("smollm", ["a", "ĠĠ", "1", "2", "3", "4", "ĠIt", "'s", '!"$']),
        ("llama-bpe", ["a", "Ġ", "Ġ", "123", "4", "ĠIt", "'s", '!"$']),
        ("default", ["a", "Ġ", "Ġ", "123", "4", "ĠIt", "'", "s", '!"$']),
    ],
)
def test_text_is_cut_as_llama_cpp_cuts_it(cut: str, words: list[str]) -> None:
    assert [word for word, _ in CUTS[cut].pre_tokenize_str("a  1234 It's!\"$")] == words
    assert CUTS[cut_of(json.loads(CUTS[cut].__getstate__())) or ""] is CUTS[cut]


GOOD: Metadata = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a"],
    "tokenizer.ggml.scores": [0.0] * 4,
    "tokenizer.ggml.token_type": [2, 3, 3, 1],
}
BYTES: Metadata = GOOD | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["a a"]}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (GOOD | {"tokenizer.ggml.tokens": ["a", "a", "b", "c"]}, "tokens that differ"),
        (GOOD | {"tokenizer.ggml.tokens": 7}, "a list of texts in tokenizer.ggml.tokens"),
        (GOOD | {"tokenizer.ggml.scores": [0.0] * 3}, "4 numbers in tokenizer.ggml.scores"),
        (GOOD | {"tokenizer.ggml.scores": [float("nan")] * 4}, "finite tokenizer.ggml.scores"),
        (GOOD | {"tokenizer.ggml.token_type": [9] * 4}, "token_type from 1 to 6"),
        (GOOD | {"tokenizer.ggml.eos_token_id": 4}, "eos_token_id below 4, got 4"),
        (GOOD | {"tokenizer.ggml.eos_token_id": 1}, "three tokens for unk, bos and eos"),
        (GOOD | {"tokenizer.ggml.add_bos_token": 1}, "true or false in tokenizer.ggml.add_bos_token"),
        (GOOD | {"tokenizer.chat_template": 1}, "text in tokenizer.ggml.pre and tokenizer.chat_template"),
        (BYTES, "merges of two tokens into a third, got 'a a'"),
        (BYTES | {"tokenizer.ggml.merges": ["a"]}, "merges of two tokens"),
        (
            BYTES | {"tokenizer.ggml.pre": "tekken", "tokenizer.ggml.tokens": ["a", "aa", "b", "c"]},
            "got 'tekken'",
        ),
        (BYTES | {"tokenizer.ggml.model": "bert"}, "'llama' or 'gpt2', got 'bert'"),
    ],
)
def test_damaged_and_unknown_vocabularies_are_named(tmp_path: Path, metadata: Metadata, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_tokenizer(metadata, tmp_path, where=HERE)


def test_what_llama_cpp_could_not_follow_is_refused(tmp_path: Path) -> None:
    n_tokens = byte_level_folder(tmp_path, "smollm").get_vocab_size()
    with pytest.raises(CheckpointError, match=f"at most {n_tokens - 1} tokens"):
        folder_vocabulary(tmp_path, n_tokens=n_tokens - 1)
    padded = folder_vocabulary(tmp_path, n_tokens=n_tokens + 2)
    assert padded.tokens[-1] == f"[PAD{n_tokens + 1}]"
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    for change, message in (
        ({"normalizer": {"type": "NFC"}}, "no normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "cuts text as one of gpt-2, smollm"),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(state | change))
        with pytest.raises(CheckpointError, match=message):
            folder_vocabulary(tmp_path, n_tokens=n_tokens)


@pytest.mark.real
def test_the_released_tokenizer_survives_on_real_text(tmp_path: Path) -> None:
    data = Path(os.environ["PUNA_DATA"])
    (tmp_path / "tokenizer.model").write_bytes(
        (data / "tokenizers" / "llama2" / "tokenizer.model").read_bytes()
    )
    reference = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    back, _ = through_gguf(tmp_path, tmp_path, reference.vocab_size())
    book = next((data / "pretraining" / "books").glob("*.gz"))
    lines = gzip.decompress(book.read_bytes()).decode("utf-8", "replace").splitlines()[:3000]
    assert len(lines) == 3000
    assert back.encode_batch(lines) == reference.encode(lines)
