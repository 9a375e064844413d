"""The vocabulary in a GGUF file's settings, checked: tokens, their kinds and scores, merges, and control ids."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGUFWriter, TokenType

from puna.conversion.byte_level import BOS_ADDED
from puna.conversion.gguf_file import damaged

__all__ = ["Vocabulary", "add_vocabulary", "read_vocabulary"]

CONTROL_IDS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
}
"""Setting that holds the id of each control token."""


class Vocabulary(NamedTuple):
    """What both kinds of tokenizer need."""

    model: str
    """"llama" for a SentencePiece BPE, "gpt2" for a byte-level one."""
    cut: str
    """Of a byte-level BPE: how text is cut into words before merging (byte_level.py)."""
    tokens: list[str]
    kinds: list[TokenType]
    scores: list[float]
    """Of a SentencePiece BPE; else empty."""
    merges: list[tuple[str, str]]
    """Of a byte-level BPE; else empty."""
    ids: Mapping[str, int]
    """Of bos, eos, unk and pad, those that the file names."""
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None


def read_vocabulary(metadata: Mapping[str, Any], *, where: Path) -> Vocabulary:
    """The tokenizer's settings.

    Raises:
        CheckpointError: one is missing, of another type, or contradicts another; or the tokenizer is of a kind that
            is not read.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("llama", "gpt2"):
        raise damaged(where, "tokenizer.ggml.model 'llama' or 'gpt2'", repr(model)[:80])
    tokens = _strings(metadata, "tokens", where)
    if len(set(tokens)) != len(tokens) or "" in tokens:
        raise damaged(where, "tokens that differ, none empty", "one twice, or an empty one")
    is_bytes = model == "gpt2"
    cut = metadata.get("tokenizer.ggml.pre", "default")
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(cut, str) or not isinstance(template, str | None):
        raise damaged(where, "text in tokenizer.ggml.pre and tokenizer.chat_template", "something else")
    return Vocabulary(
        model=model,
        cut=cut,
        tokens=tokens,
        kinds=_kinds(metadata, len(tokens), where),
        scores=[] if is_bytes else _scores(metadata, len(tokens), where),
        merges=_merges(metadata, set(tokens), where) if is_bytes else [],
        ids=_ids(metadata, len(tokens), where),
        add_bos=_flag(metadata, "add_bos_token", where, default=not is_bytes or cut in BOS_ADDED),
        add_eos=_flag(metadata, "add_eos_token", where, default=False),
        add_space_prefix=_flag(metadata, "add_space_prefix", where, default=not is_bytes),
        chat_template=template,
    )


def _strings(metadata: Mapping[str, Any], key: str, where: Path) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not value:
        raise damaged(where, f"a list of texts in tokenizer.ggml.{key}", "none")
    return value


def _numbers(metadata: Mapping[str, Any], key: str, n_tokens: int, where: Path) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or len(value) != n_tokens or isinstance(value[0], str):
        got = f"{len(value)}" if isinstance(value, list) else "none"
        raise damaged(where, f"{n_tokens} numbers in tokenizer.ggml.{key}, one per token", got)
    return value


def _scores(metadata: Mapping[str, Any], n_tokens: int, where: Path) -> list[float]:
    scores = [float(score) for score in _numbers(metadata, "scores", n_tokens, where)]
    if not all(map(math.isfinite, scores)):
        raise damaged(where, "finite tokenizer.ggml.scores", "NaN or infinity")
    return scores


def _kinds(metadata: Mapping[str, Any], n_tokens: int, where: Path) -> list[TokenType]:
    if "tokenizer.ggml.token_type" not in metadata:
        return [TokenType.NORMAL] * n_tokens
    numbers = _numbers(metadata, "token_type", n_tokens, where)
    known = set(TokenType)
    if not known.issuperset(numbers):
        raise damaged(where, "tokenizer.ggml.token_type from 1 to 6", repr(set(numbers) - known)[:80])
    return [TokenType(number) for number in numbers]


def _merges(metadata: Mapping[str, Any], tokens: set[str], where: Path) -> list[tuple[str, str]]:
    merges = []
    for line in _strings(metadata, "merges", where):
        left, _, right = line.partition(" ")
        if not {left, right, left + right} <= tokens:
            raise damaged(where, "merges of two tokens into a third", repr(line)[:80])
        merges.append((left, right))
    return merges


def _ids(metadata: Mapping[str, Any], n_tokens: int, where: Path) -> dict[str, int]:
    found = {}
    for name, key in CONTROL_IDS.items():
        value = metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if not isinstance(value, int) or not 0 <= value < n_tokens:
            raise damaged(where, f"tokenizer.ggml.{key} below {n_tokens}", repr(value)[:80])
        found[name] = value
    return found


def _flag(metadata: Mapping[str, Any], key: str, where: Path, *, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool):
        raise damaged(where, f"true or false in tokenizer.ggml.{key}", repr(value)[:80])
    return value


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the tokenizer's settings."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    if vocabulary.merges:
        writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    for name, token_id in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{CONTROL_IDS[name]}", token_id)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
