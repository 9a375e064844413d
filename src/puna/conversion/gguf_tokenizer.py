"""The tokenizer inside a GGUF file as the files of a Hugging Face folder.

A SentencePiece BPE becomes tokenizer.model, a byte-level BPE tokenizer.json; the chat template goes along as it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gguf import TokenType

from puna.conversion.byte_level import CUTS, byte_level_bpe
from puna.conversion.gguf_file import damaged
from puna.conversion.gguf_vocabulary import Vocabulary, read_vocabulary
from puna.conversion.sentencepiece_proto import Piece, sentencepiece_model
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["tokenizer_from_gguf", "write_tokenizer"]


def tokenizer_from_gguf(metadata: Mapping[str, Any], *, where: Path) -> Tokenizer | None:
    """The tokenizer of the file; None when it holds none.

    Raises:
        CheckpointError: it is damaged or of a kind that is not read.
    """
    if metadata.get("tokenizer.ggml.model") in (None, "no_vocab", "none"):
        return None
    with TemporaryDirectory() as folder:
        write_tokenizer(metadata, Path(folder), where=where)
        return Tokenizer.load(Path(folder))


def write_tokenizer(metadata: Mapping[str, Any], folder: Path, *, where: Path) -> None:
    """Write tokenizer.model or tokenizer.json, and tokenizer_config.json with the chat template.

    Raises:
        CheckpointError: the vocabulary is damaged or of a kind that is not read.
    """
    vocabulary = read_vocabulary(metadata, where=where)
    if vocabulary.model == "llama":
        (folder / "tokenizer.model").write_bytes(_sentencepiece(vocabulary, where))
    else:
        if vocabulary.cut not in CUTS:
            raise damaged(where, f"tokenizer.ggml.pre one of {', '.join(CUTS)}", repr(vocabulary.cut)[:80])
        bos_id = vocabulary.ids.get("bos") if vocabulary.add_bos else None
        fast = byte_level_bpe(
            vocabulary.tokens, vocabulary.kinds, vocabulary.merges, cut=vocabulary.cut, bos_id=bos_id
        )
        (folder / "tokenizer.json").write_text(fast.to_str(), encoding="utf-8")
    config = json.dumps(_config(vocabulary), ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")


def _sentencepiece(vocabulary: Vocabulary, where: Path) -> bytes:
    """Content of tokenizer.model; SentencePiece insists on three control pieces of the right kind."""
    kinds = list(vocabulary.kinds)
    unknown = [token_id for token_id, kind in enumerate(kinds) if kind is TokenType.UNKNOWN]
    defaults = {"unk": unknown[0] if unknown else 0, "bos": 1, "eos": 2}
    ids = {name: vocabulary.ids.get(name, token_id) for name, token_id in defaults.items()}
    if len(set(ids.values())) < 3 or max(ids.values()) >= len(kinds):
        raise damaged(where, "three tokens for unk, bos and eos", repr(ids))
    for token_id in unknown:
        kinds[token_id] = TokenType.UNUSED
    kinds[ids["unk"]] = TokenType.UNKNOWN
    kinds[ids["bos"]] = kinds[ids["eos"]] = TokenType.CONTROL
    pieces = [Piece(*piece) for piece in zip(vocabulary.tokens, vocabulary.scores, kinds, strict=True)]
    return sentencepiece_model(
        pieces,
        unk_id=ids["unk"],
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        add_dummy_prefix=vocabulary.add_space_prefix,
    )


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    template = {} if vocabulary.chat_template is None else {"chat_template": vocabulary.chat_template}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": vocabulary.tokens[token_id] for name, token_id in vocabulary.ids.items()},
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        **template,
    }
