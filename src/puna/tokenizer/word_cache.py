"""Ids of SentencePiece words, remembered: the same ids as one call on the whole text, at several times its speed.

SentencePiece joins two neighbours when they make a piece. Where no piece holds a space after another character, no
join ever crosses the place before a run of spaces; where no piece but itself holds a line end, none crosses a line
end. Between two such places the joins are the same whatever stands outside, so a text is its words, one by one.
`split_is_exact` reads off the vocabulary whether a model allows this; Llama 2's does, and so does what we train.
"""

import re
from array import array
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from sentencepiece import SentencePieceProcessor

__all__ = ["SPACE", "WordCache", "split_is_exact", "words"]

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's own sign for a space."""
RUN = re.compile("(  +[^ \n]*)")
"""Two spaces or more, with what follows them."""
MAX_CHARS = 3_000_000
"""Characters of remembered words (about 80 MB); above it, the half that came last is forgotten."""


class WordCache(dict[str, bytes]):
    """Word to ids, as the bytes of an array of C ints: joining those is the fastest way to join ids."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        super().__init__()
        self._processor = processor
        self._n_chars = 0

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            TypeError: the text is no valid Unicode.
        """
        self._forget()
        return self._join(words(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; what is new in the batch goes through SentencePiece at once.

        Raises:
            TypeError: a text is no valid Unicode.
        """
        self._forget()
        rows = [words(text) for text in texts]
        self._learn([word for word in set().union(*rows) if word not in self])
        return [self._join(row) for row in rows]

    def __missing__(self, word: str) -> bytes:
        self._learn([word])
        return self[word]

    def _forget(self) -> None:
        """Frequent words came first, so those stay."""
        if self._n_chars > MAX_CHARS:
            kept = dict(islice(self.items(), len(self) // 2))
            self.clear()
            self.update(kept)
            self._n_chars = sum(map(len, kept))

    def _join(self, row: Iterable[str]) -> list[int]:
        return np.frombuffer(b"".join(map(self.__getitem__, row)), dtype=np.intc).tolist()

    def _learn(self, new: Sequence[str]) -> None:
        """SentencePiece puts a space before every text: here the word's own, or one that comes off again."""
        if not new:
            return
        # The word "" stands for a single space: as text, a line end after it keeps its piece apart.
        texts = [word[1:] if word.startswith("  ") else word or "\n" for word in new]
        for word, ids in zip(new, self._processor.encode(texts, num_threads=1), strict=True):
            own = ids[1:] if word.startswith("\n") else ids if word else ids[:1]
            self[word] = array("i", own).tobytes()
            self._n_chars += len(word)


def words(text: str) -> list[str]:
    """The text cut before every run of spaces and every line end.

    A word without a space in front has a single one before it in the text, or stands at its start; so "" is one space
    alone. A word that begins with a line end has none, and a longer run of spaces is written out.
    """
    if not text:
        return []
    text = " " + text.replace(SPACE, " ")
    if "  " not in text:
        return text.replace("\n", " \n").split(" ")[1:]
    row: list[str] = []
    for number, part in enumerate(RUN.split(text)):
        row += [part] if number % 2 else part.replace("\n", " \n").split(" ")[1:]
    return row


def split_is_exact(processor: SentencePieceProcessor) -> bool:
    """Whether word by word is the same as all at once, for every text.

    Not for a unigram model: it adds up scores along the text, and the rounding of a long sum may turn a near tie.
    """
    ids = range(processor.vocab_size())
    space, line_end = processor.piece_to_id(SPACE), processor.encode("\n")[1:]
    return (
        len(line_end) == 1
        and processor.encode(" \n \n") == [*processor.encode(" "), *line_end, space, *line_end]
        and all(processor.get_score(i).is_integer() for i in ids)  # a BPE score is a rank
        and not any(_crosses(processor.id_to_piece(i)) for i in ids)
    )


def _crosses(piece: str) -> bool:
    return SPACE in piece.lstrip(SPACE) or ("\n" in piece and piece != "\n")
