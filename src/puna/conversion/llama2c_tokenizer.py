"""llama2.c's tokenizer.bin as a SentencePiece model.

Source: export in llama2.c's tokenizer.py: the longest piece's length, then for each piece its score, its length and
its bytes. Spaces stand for SentencePiece's U+2581, and line ends were put around <s> and </s>; both are undone here.
"""

import math
import re
import struct
from pathlib import Path

from gguf import TokenType

from puna.conversion.sentencepiece_proto import Piece, sentencepiece_model
from puna.model.hf_config import broken

__all__ = ["is_llama2c_tokenizer", "read_llama2c_tokenizer"]

MAX_FILE_BYTES = 64 * 2**20
MAX_PIECE_BYTES = 4096
CONTROLS = {0: ("<unk>", TokenType.UNKNOWN), 1: ("<s>", TokenType.CONTROL), 2: ("</s>", TokenType.CONTROL)}
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def is_llama2c_tokenizer(path: Path) -> bool:
    """Whether a file starts as llama2.c's do: a small length, then the piece <unk>."""
    with path.open("rb") as file:
        start = file.read(17)
    return len(start) == 17 and start[3] == 0 and start[12:] == b"<unk>"


def read_llama2c_tokenizer(path: Path) -> bytes:
    """Content of the tokenizer.model that encodes as this file does.

    Raises:
        CheckpointError: the file is truncated, or its pieces are not those of a Llama tokenizer.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise broken(path, f"a tokenizer of at most {MAX_FILE_BYTES:,} bytes", f"{path.stat().st_size:,}")
    content = path.read_bytes()
    pieces: list[Piece] = []
    position = 4
    while position < len(content):
        text, score, position = _piece(content, position, path)
        token_id = len(pieces)
        if token_id in CONTROLS:
            name, kind = CONTROLS[token_id]
            if text.strip() != name:
                raise broken(path, f"{name} as token {token_id}", repr(text[:20]))
            pieces.append(Piece(name, score, kind))
        elif _BYTE.fullmatch(text):
            pieces.append(Piece(text, score, TokenType.BYTE))
        else:
            pieces.append(Piece(text.replace(" ", SPACE), score, TokenType.NORMAL))
    names = {piece.text for piece in pieces}
    n_bytes = sum(piece.kind is TokenType.BYTE for piece in pieces)
    if len(names) != len(pieces) or "" in names or n_bytes != 256:
        raise broken(
            path, "different pieces, one for every byte", f"{len(names)} of {len(pieces)}, {n_bytes} bytes"
        )
    return sentencepiece_model(pieces, unk_id=0, bos_id=1, eos_id=2)


def _piece(content: bytes, position: int, path: Path) -> tuple[str, float, int]:
    """Text and score of one piece, and where the next begins."""
    if position + 8 > len(content):
        raise broken(path, "a score and a length", "the end of the file")
    score, length = struct.unpack_from("<fi", content, position)
    start = position + 8
    if not 0 < length <= MAX_PIECE_BYTES or start + length > len(content) or not math.isfinite(score):
        raise broken(
            path, f"a piece of 1 to {MAX_PIECE_BYTES} bytes with a finite score", f"{length}, score {score}"
        )
    try:
        return content[start : start + length].decode("utf-8"), score, start + length
    except UnicodeDecodeError as error:
        raise broken(path, "pieces in UTF-8", str(error)) from None
