"""A SentencePiece tokenizer.model as a backend."""

from collections.abc import Collection
from functools import cached_property

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as FastTokenizer

from puna.core.errors import CheckpointError
from puna.tokenizer.backend import text_error
from puna.tokenizer.guard import GuardedTokenizer
from puna.tokenizer.hugging_face import fast_tokenizer
from puna.tokenizer.word_cache import WordCache, split_is_exact

__all__ = ["SentencePieceBackend"]

ALL_CORES = -1


class SentencePieceBackend:
    """SentencePiece itself, word by word from a cache where the vocabulary allows that."""

    def __init__(self, model: bytes, *, name: str) -> None:
        """Take the content of a tokenizer.model file; the name is for error messages.

        Raises:
            CheckpointError: it is damaged, or no SentencePiece model.
        """
        self.model = model
        self.processor = _parse(model, name)
        self._cache = WordCache(self.processor) if split_is_exact(self.processor) else None
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
        """The same tokenizer as the tokenizers package has it."""
        return fast_tokenizer(self.processor)

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
                return self._cache.encode_batch(texts, n_threads=ALL_CORES)
            rows = self.processor.encode(texts, num_threads=ALL_CORES)
        except (RuntimeError, TypeError) as error:
            raise text_error(texts) or error from None
        return [self._without_controls(text, ids) for text, ids in zip(texts, rows, strict=True)]

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
