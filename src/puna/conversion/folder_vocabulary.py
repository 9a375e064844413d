"""The vocabulary of a Hugging Face folder in the terms of a GGUF file, so that llama.cpp makes the same tokens.

tokenizer.model is preferred to tokenizer.json, which is read only when it is a byte-level BPE that cuts text in a way
llama.cpp has a name for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import TokenType
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as FastTokenizer

from puna.conversion.byte_level import CUTS, cut_of
from puna.conversion.gguf_vocabulary import Vocabulary
from puna.core.errors import CheckpointError
from puna.model.hf_config import read_json

__all__ = ["folder_vocabulary"]


def folder_vocabulary(folder: Path, *, n_tokens: int) -> Vocabulary:
    """What a GGUF needs to know of the folder's tokenizer.

    Args:
        n_tokens: Rows of the model's embedding; tokens that are missing become unused ones.
    Raises:
        CheckpointError: there is none, it has more tokens than the model, or llama.cpp could not follow it.
    """
    config_file = folder / "tokenizer_config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    if (folder / "tokenizer.model").is_file():
        vocabulary = _sentencepiece(folder / "tokenizer.model", config)
    else:
        vocabulary = _byte_level(folder / "tokenizer.json", config)
    template = folder / "chat_template.jinja"
    if template.is_file():
        vocabulary = vocabulary._replace(chat_template=template.read_text(encoding="utf-8"))
    return _padded(vocabulary, n_tokens, folder)


def _refused(where: Path, expected: str, got: str) -> CheckpointError:
    fix = "Write another format, or leave the tokenizer out and give llama.cpp one of its own."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)


def _sentencepiece(path: Path, config: Mapping[str, Any]) -> Vocabulary:
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise _refused(path, "a SentencePiece model", str(error)) from None
    ids = {
        "bos": processor.bos_id(),
        "eos": processor.eos_id(),
        "unk": processor.unk_id(),
        "pad": processor.pad_id(),
    }
    n_tokens = processor.vocab_size()
    first = processor.encode("a", out_type=str)[0]
    return Vocabulary(
        model="llama",
        cut="default",
        tokens=[processor.id_to_piece(token_id) for token_id in range(n_tokens)],
        kinds=[_piece_kind(processor, token_id) for token_id in range(n_tokens)],
        scores=[processor.get_score(token_id) for token_id in range(n_tokens)],
        merges=[],
        ids={name: token_id for name, token_id in ids.items() if token_id >= 0},
        add_bos=config.get("add_bos_token", True) is not False,
        add_eos=config.get("add_eos_token", False) is True,
        add_space_prefix=first.startswith("\N{LOWER ONE EIGHTH BLOCK}"),
        chat_template=_template(config),
    )


def _piece_kind(processor: SentencePieceProcessor, token_id: int) -> TokenType:
    if processor.is_unknown(token_id):
        return TokenType.UNKNOWN
    if processor.is_control(token_id):
        return TokenType.CONTROL
    if processor.is_unused(token_id):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.is_byte(token_id) else TokenType.NORMAL


def _byte_level(path: Path, config: Mapping[str, Any]) -> Vocabulary:
    state = read_json(path)
    try:
        fast = FastTokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower type
        raise _refused(path, "a tokenizer.json", str(error)[:200]) from None
    cut = cut_of(state.get("pre_tokenizer"))
    if state["model"].get("type", "BPE") != "BPE" or cut is None:
        got = repr(state.get("pre_tokenizer"))[:200]
        raise _refused(path, f"a byte-level BPE that cuts text as one of {', '.join(CUTS)}", got)
    if state.get("normalizer") is not None:
        raise _refused(path, "no normalizer, which llama.cpp would skip", repr(state["normalizer"])[:200])
    by_id = {token_id: token for token, token_id in fast.get_vocab(with_added_tokens=True).items()}
    tokens = [by_id.get(token_id, f"[PAD{token_id}]") for token_id in range(max(by_id) + 1)]
    kinds = [TokenType.NORMAL if token_id in by_id else TokenType.UNUSED for token_id in range(len(tokens))]
    for token_id, added in fast.get_added_tokens_decoder().items():
        kinds[token_id] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    ids = _control_ids(fast, config)
    around = fast.encode("").ids
    return Vocabulary(
        model="gpt2",
        cut=cut,
        tokens=tokens,
        kinds=kinds,
        scores=[],
        merges=[_pair(merge) for merge in state["model"]["merges"]],
        ids=ids,
        add_bos=bool(around) and around[0] == ids.get("bos"),
        add_eos=bool(around) and around[-1] == ids.get("eos") and around[-1:] != around[:1],
        add_space_prefix=False,
        chat_template=_template(config),
    )


def _pair(merge: Any) -> tuple[str, str]:
    """Both forms of tokenizer.json: "a b" and ["a", "b"]."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _control_ids(fast: FastTokenizer, config: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for name in ("bos", "eos", "unk", "pad"):
        token = config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        token_id = fast.token_to_id(text) if isinstance(text, str) else None
        if token_id is not None:
            found[name] = token_id
    return found


def _template(config: Mapping[str, Any]) -> str | None:
    template = config.get("chat_template")
    return template if isinstance(template, str) else None


def _padded(vocabulary: Vocabulary, n_tokens: int, where: Path) -> Vocabulary:
    have = len(vocabulary.tokens)
    if have > n_tokens:
        raise _refused(where, f"at most {n_tokens} tokens, the rows of the model's embedding", str(have))
    missing = n_tokens - have
    return vocabulary._replace(
        tokens=vocabulary.tokens + [f"[PAD{token_id}]" for token_id in range(have, n_tokens)],
        kinds=vocabulary.kinds + [TokenType.UNUSED] * missing,
        scores=vocabulary.scores + [-10_000.0] * missing if vocabulary.scores else [],
    )
