"""Write a SentencePiece BPE model from its pieces, where a file keeps the vocabulary but not tokenizer.model itself.

Source: sentencepiece_model.proto. The description that sentencepiece ships (sentencepiece_model_pb2) fails at import
unless protobuf is as new as its own compiler, and sentencepiece does not ask for protobuf at all; a few fields need
neither.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from gguf import TokenType

__all__ = ["Piece", "sentencepiece_model"]


class Piece(NamedTuple):
    """One token; a higher score is merged earlier."""

    text: str
    score: float
    kind: TokenType
    """GGUF's token types have the numbers of SentencePiece's kinds."""


def sentencepiece_model(
    pieces: Sequence[Piece], *, unk_id: int, bos_id: int, eos_id: int, add_dummy_prefix: bool = True
) -> bytes:
    """Content of a tokenizer.model that encodes with these pieces: BPE with byte fallback, no normalization.

    Args:
        add_dummy_prefix: Whether a text gets a space in front before it is encoded, as in Llama 2.
    """
    body = b"".join(_message(1, _piece(piece)) for piece in pieces)
    trainer = (
        _number(3, 2)  # model_type BPE
        + _number(4, len(pieces))
        + _number(35, any(piece.kind is TokenType.BYTE for piece in pieces))  # byte_fallback
        + b"".join(_number(40 + i, token_id) for i, token_id in enumerate((unk_id, bos_id, eos_id)))
        + _number(43, -1)  # pad_id
        + b"".join(
            _message(45 + i, pieces[token_id].text.encode())
            for i, token_id in enumerate((unk_id, bos_id, eos_id))
        )
    )
    normalizer = (
        _message(1, b"identity")
        + _number(3, add_dummy_prefix)
        + _number(4, False)  # remove_extra_whitespaces
    )
    return body + _message(2, trainer) + _message(3, normalizer)


def _piece(piece: Piece) -> bytes:
    score = _varint(2 << 3 | 5) + struct.pack("<f", piece.score)
    return _message(1, piece.text.encode()) + score + _number(3, piece.kind)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value % 2**64)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
