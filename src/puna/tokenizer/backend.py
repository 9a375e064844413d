"""What the two backends of a tokenizer share: their interface, and errors that name a text or an id."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from puna.core.errors import DataError, ShapeError

__all__ = ["Backend", "TextEncoder", "check_ids", "text_error"]


@runtime_checkable
class Backend(Protocol):
    """Text to ids and back, without control tokens of any kind."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, in which no control token is looked for."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; control tokens vanish."""
        ...

    def piece(self, token_id: int) -> str:
        """What the vocabulary calls an id."""
        ...

    def piece_id(self, piece: str) -> int | None:
        """The id of a piece; None when there is none."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """The part of a tokenizer that Llama 2's chat format needs."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of the text."""
        ...


def text_error(texts: Sequence[str]) -> DataError | None:
    """Names the first text that is no valid Unicode; None when all are."""
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            return DataError(
                where=f"text {text[:60]!r}",
                expected="valid Unicode",
                got="an unpaired surrogate",
                fix="Decode the input as UTF-8 with errors='replace'.",
            )
    return None


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Refuse ids outside the vocabulary.

    Raises:
        ShapeError: one of them is negative or too large.
    """
    if len(ids) and not (min(ids) >= 0 and max(ids) < vocab_size):
        raise ShapeError(
            where="token ids",
            expected=f"ids from 0 to {vocab_size - 1}",
            got=f"{min(ids)} to {max(ids)}",
            fix="Use the tokenizer that the model was trained with.",
        )
