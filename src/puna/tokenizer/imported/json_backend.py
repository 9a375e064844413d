"""A tokenizer.json as a backend: BPE, byte-level BPE, Unigram and whatever else the tokenizers package reads."""

import json
from collections.abc import Collection
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from puna.core.errors import CheckpointError
from puna.tokenizer.backend import text_error
from puna.tokenizer.imported.guard import GuardedTokenizer

__all__ = ["JsonBackend", "n_ids"]


class JsonBackend:
    """The tokenizers package; text is encoded with the control tokens hidden."""

    def __init__(self, content: bytes, *, name: str) -> None:
        """Take the content of a tokenizer.json file; the name is for error messages.

        Raises:
            CheckpointError: it is damaged, or no tokenizer.json.
        """
        self.content = content
        self._json = _parse(content, name)
        self.fast = _build(content, name)
        self._pieces = self.fast.get_vocab(with_added_tokens=True)
        self._controls = {token["content"] for token in self._json["added_tokens"] if token["special"]}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces.values(), default=-1) + 1

    @property
    def special_pieces(self) -> list[str]:
        """Added tokens that the file itself calls special, by id."""
        return sorted(self._controls, key=lambda piece: self._pieces[piece])

    @property
    def added_pieces(self) -> list[str]:
        """All added tokens, special or not."""
        return [token["content"] for token in self._json["added_tokens"]]

    def refuse_typed(self, controls: Collection[str]) -> None:
        """Say which pieces are control tokens besides those the file calls special."""
        self._controls |= {control for control in controls if control in self._pieces}
        self.__dict__.pop("_guarded", None)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            DataError: the text holds half of a surrogate pair.
        """
        try:
            return self._guarded.encode(text)
        except TypeError as error:
            raise text_error([text]) or error from None

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, on all cores.

        Raises:
            DataError: as `encode`.
        """
        try:
            return self._guarded.encode_batch(texts)
        except TypeError as error:
            raise text_error(texts) or error from None

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return self.fast.decode(ids, skip_special_tokens=True)

    def piece(self, token_id: int) -> str:
        """What the vocabulary calls an id; empty where it skips one."""
        return self.fast.id_to_token(token_id) or ""

    def piece_id(self, piece: str) -> int | None:
        """The id of a piece; None when there is none."""
        return self._pieces.get(piece)

    @cached_property
    def _guarded(self) -> GuardedTokenizer:
        return GuardedTokenizer(json.dumps(self._json), self._controls)


def n_ids(content: bytes) -> int | None:
    """Number of ids of a tokenizer.json, added tokens included; None when it is not one."""
    try:
        parsed = json.loads(content)
        added = [token["id"] for token in parsed["added_tokens"]]
        return max([len(parsed["model"]["vocab"]) - 1, *added]) + 1
    except (ValueError, KeyError, TypeError):
        return None


def _parse(content: bytes, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
        parsed.setdefault("added_tokens", [])
        parsed["model"]["vocab"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(name, f"{len(content)} bytes that are not one") from None
    return parsed


def _build(content: bytes, name: str) -> FastTokenizer:
    try:
        return FastTokenizer.from_buffer(content)
    except Exception as error:  # the package raises nothing narrower
        raise _damaged(name, str(error)) from None


def _damaged(name: str, got: str) -> CheckpointError:
    fix = "Restore the file; a newer one may need a newer tokenizers package."
    return CheckpointError(where=name, expected="a tokenizer.json", got=got, fix=fix)
