"""A tokenizer.json whose control tokens answer only to secret names, so that nothing typed can ever be one.

Every control token is renamed to random letters, in the vocabulary and among the added tokens alike; ids stay. Text
then meets no control token. A chat template's own control tokens are written by their secret names, and the rest of
the tokenizer (normalizer, splitting, stripping beside added tokens) sees the same shape of text as before.
"""

import json
import re
import secrets
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

__all__ = ["GuardedTokenizer", "control_pattern"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
"""Letters that no normalizer changes."""
NAME_LENGTH = 32


class GuardedTokenizer:
    """Encodes text in which control tokens appear by secret name only."""

    def __init__(self, tokenizer_json: str, controls: Collection[str]) -> None:
        """Take the content of a tokenizer.json and the control tokens to hide."""
        self.secret_names = {control: _secret_name() for control in controls}
        self._pattern = control_pattern(self.secret_names.values())
        self._fast = FastTokenizer.from_str(
            json.dumps(_renamed(json.loads(tokenizer_json), self.secret_names))
        )

    def encode(self, text: str) -> list[int]:
        """Token ids; no token is put before or after them."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts, on all cores."""
        return [row.ids for row in self._fast.encode_batch_fast(texts, add_special_tokens=False)]

    def control_spans(self, guarded: str) -> list[tuple[int, int]]:
        """Where secret names stand in a text."""
        return [found.span() for found in self._pattern.finditer(guarded)]


def control_pattern(controls: Collection[str]) -> re.Pattern[str]:
    """Finds the longest control token at each place; nothing when there is none."""
    longest_first = sorted(controls, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _secret_name() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(NAME_LENGTH))


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The tokenizer with those names instead; no token added around a text, none cut off."""
    model = dict(content["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocab.items()}
        ids = vocab
    else:  # Unigram: pieces and their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
        ids = {piece: token_id for token_id, (piece, _) in enumerate(vocab)}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _makes_control(merge, names)]
    added = [
        token | {"content": names.get(token["content"], token["content"])}
        for token in content["added_tokens"]
    ]
    listed = {token["content"] for token in content["added_tokens"]}
    added += [_added_token(ids[name], names[name]) for name in names if name in ids and name not in listed]
    return content | {
        "model": model,
        "added_tokens": added,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _makes_control(merge: str | list[str], names: dict[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names


def _added_token(token_id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}
