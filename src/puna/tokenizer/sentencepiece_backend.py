"""A SentencePiece tokenizer.model as a backend."""

import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as FastTokenizer

from puna.core.errors import CheckpointError
from puna.tokenizer.backend import text_error
from puna.tokenizer.hugging_face import check_conversion, fast_tokenizer
from puna.tokenizer.imported.guard import GuardedTokenizer
from puna.tokenizer.word_cache import WordCache, split_is_exact

__all__ = ["SentencePieceBackend"]

MIN_SHARED_CHARS = 100_000
"""Below this, starting threads costs more than they save."""


class SentencePieceBackend:
    """SentencePiece itself, word by word from a cache where the vocabulary allows that."""

    def __init__(self, model: bytes, *, name: str) -> None:
        """Take the content of a tokenizer.model file; the name is for error messages.

        Raises:
            CheckpointError: it is damaged, or no SentencePiece model.
        """
        self.model = model
        self.processor = _parse(model, name)
        self._name = name
        self._has_plain_words = split_is_exact(self.processor)
        self._cache = WordCache(self.processor) if self._has_plain_words else None
        self._typed_controls: frozenset[int] = frozenset()

    @property
    def vocab_size(self) -> int:
        """Number of pieces, control and byte pieces included."""
        return self.processor.vocab_size()

    @property
    def special_pieces(self) -> list[str]:
        """Control pieces and the one for the unknown."""
        processor = self.processor
        ids = range(processor.vocab_size())
        return [processor.id_to_piece(i) for i in ids if processor.is_control(i) or processor.is_unknown(i)]

    @property
    def added_pieces(self) -> list[str]:
        """Pieces with the score of "user defined" ones, which SentencePiece finds in any text."""
        processor = self.processor
        ids = range(processor.vocab_size())
        return [
            processor.id_to_piece(i) for i in ids if not processor.get_score(i) and not processor.is_byte(i)
        ]

    def refuse_typed(self, controls: Collection[str]) -> None:
        """Say which pieces are control tokens, so that no text becomes them.

        SentencePiece never finds its own control pieces in a text, but it does find "user defined" ones.
        """
        ids = {self.piece_id(control): control for control in controls}
        typed = {i for i, control in ids.items() if i is not None and i in self.processor.encode(control)}
        self._typed_controls = frozenset(typed)
        if typed:
            self._cache = None

    @cached_property
    def fast(self) -> FastTokenizer:
        """The same tokenizer as the tokenizers package has it.

        Raises:
            CheckpointError: it is not the same, as for a unigram model.
        """
        fast = fast_tokenizer(self.processor)
        if not self._has_plain_words:  # such models are converted exactly; others show it only when tried
            check_conversion(self.processor, fast, name=self._name)
        return fast

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            DataError: the text holds half of a surrogate pair.
        """
        try:
            ids = self._cache.encode(text) if self._cache is not None else self.processor.encode(text)
        except (RuntimeError, TypeError) as error:
            raise text_error([text]) or error from None
        return self._without_controls(text, ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, on all cores.

        Raises:
            DataError: as `encode`.
        """
        if not texts:
            return []
        try:
            if self._cache is not None:
                return self._encode_shared(texts, self._cache)
            rows = self.processor.encode(texts, num_threads=_n_cores())
        except (RuntimeError, TypeError) as error:
            raise text_error(texts) or error from None
        return [self._without_controls(text, ids) for text, ids in zip(texts, rows, strict=True)]

    def _encode_shared(self, texts: list[str], cache: WordCache) -> list[list[int]]:
        """The cache, which only one thread can use, from the front; SentencePiece in other threads from the back.

        Both give the same ids, so it does not matter which of them takes a text.
        """
        n_others = _n_cores() - 1 if sum(map(len, texts)) > MIN_SHARED_CHARS else 0
        if not n_others:
            return cache.encode_batch(texts)
        rows: list[list[int]] = [[]] * len(texts)
        share = _Share(len(texts), n_workers=n_others + 1)

        def work_alone() -> None:
            while part := share.from_back():
                rows[part.start : part.stop] = self.processor.encode(
                    texts[part.start : part.stop], num_threads=1
                )

        with ThreadPoolExecutor(max_workers=n_others) as pool:
            others = [pool.submit(work_alone) for _ in range(n_others)]
            while part := share.from_front():
                rows[part.start : part.stop] = cache.encode_batch(texts[part.start : part.stop])
        for other in others:
            other.result()
        return rows

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return self.processor.decode(ids)

    def piece(self, token_id: int) -> str:
        """The piece as SentencePiece writes it."""
        return self.processor.id_to_piece(token_id)

    def piece_id(self, piece: str) -> int | None:
        """The id of a piece; None when there is none."""
        token_id = self.processor.piece_to_id(piece)
        return token_id if self.processor.id_to_piece(token_id) == piece else None

    @cached_property
    def _guarded(self) -> GuardedTokenizer:
        controls = [self.piece(token_id) for token_id in self._typed_controls]
        return GuardedTokenizer(self.fast.to_str(), controls)

    def _without_controls(self, text: str, ids: list[int]) -> list[int]:
        if self._typed_controls.isdisjoint(ids):
            return ids
        return self._guarded.encode(text)


class _Share:
    """Deals out texts from both ends, in parts that get smaller, so that all workers end at about the same time."""

    def __init__(self, n_texts: int, *, n_workers: int) -> None:
        self._left = range(n_texts)
        self._n_workers = n_workers
        self._lock = threading.Lock()

    def from_front(self) -> range:
        """The next part for the cache, which is about twice as fast; empty when none is left."""
        with self._lock:
            n = -(-len(self._left) // (2 * self._n_workers))
            part, self._left = self._left[:n], self._left[n:]
            return part

    def from_back(self) -> range:
        """The next part for one of the others; empty when none is left."""
        with self._lock:
            n = -(-len(self._left) // (4 * self._n_workers))
            cut = len(self._left) - n
            part, self._left = self._left[cut:], self._left[:cut]
            return part


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parse(model: bytes, name: str) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=model) if model else None
    except RuntimeError:
        processor = None
    if processor is None or processor.unk_id() < 0:
        raise CheckpointError(
            where=name,
            expected="a SentencePiece model",
            got=f"{len(model)} bytes that are not one",
            fix="Restore the file, or train the tokenizer again.",
        )
    return processor
