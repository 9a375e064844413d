"""A SentencePiece tokenizer as Llama 2 uses it (§2.2): ids in, ids out, and no text ever becomes a control token."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from puna.core.errors import CheckpointError, DataError, ShapeError
from puna.tokenizer.hugging_face import write_hugging_face

__all__ = ["Tokenizer"]

MODEL_FILE = "tokenizer.model"


class Tokenizer:
    """Encodes and decodes text; made by `Tokenizer.load`.

    Unknown characters fall back to UTF-8 bytes, so every text comes back from its ids unchanged, save that U+2581,
    SentencePiece's own sign for a space, comes back as a space.
    """

    def __init__(self, model: bytes, *, name: str = MODEL_FILE) -> None:
        """Take the content of a tokenizer.model file; the name is for error messages."""
        self._model = model
        self._name = name
        self._processor = _parse(model, name)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.model file, or the one in a folder.

        Raises:
            DataError: there is no such file.
            CheckpointError: it is damaged, or no SentencePiece model.
        """
        file = path / MODEL_FILE if path.is_dir() else path
        if not file.is_file():
            raise DataError(
                where=str(path),
                expected=f"a folder with {MODEL_FILE}, or such a file",
                got="no such file",
                fix="Check the path, or train a tokenizer first.",
            )
        return cls(file.read_bytes(), name=str(file))

    @property
    def vocab_size(self) -> int:
        """Number of ids, control and byte pieces included."""
        return self._processor.vocab_size()

    @property
    def bos_id(self) -> int:
        """Id of <s>."""
        return self._processor.bos_id()

    @property
    def eos_id(self) -> int:
        """Id of </s>."""
        return self._processor.eos_id()

    @property
    def unk_id(self) -> int:
        """Id of <unk>; byte fallback leaves it unused."""
        return self._processor.unk_id()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of the text; "<s>" typed in it is encoded letter by letter like any other text.

        Raises:
            DataError: the text holds half of a surrogate pair, which no UTF-8 file can.
        """
        try:
            token_ids = self._processor.encode(text)
        except RuntimeError as error:
            raise _text_error([text]) or error from None
        return [self.bos_id] * bos + token_ids + [self.eos_id] * eos

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of each text, without <s> and </s>, on all cores.

        Raises:
            DataError: as `encode`.
        """
        batch = list(texts)
        try:
            return self._processor.encode(batch) if batch else []
        except TypeError as error:
            raise _text_error(batch) or error from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; control tokens vanish, and bytes that are no UTF-8 become U+FFFD.

        Raises:
            ShapeError: an id lies outside the vocabulary.
        """
        self._check(ids)
        return self._processor.decode(list(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id as SentencePiece writes it: a space is U+2581, a byte <0x0A>.

        Raises:
            ShapeError: an id lies outside the vocabulary.
        """
        self._check(ids)
        return [self._processor.id_to_piece(token_id) for token_id in ids]

    def save(self, folder: Path, *, max_seq_len: int) -> None:
        """Write tokenizer.model and what other software reads: tokenizer.json and the configs with the chat template.

        Args:
            max_seq_len: The model's context in tokens, recorded for that software.
        Raises:
            CheckpointError: the model is no BPE with Llama's normalizer, so tokenizer.json could not equal it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_hugging_face(self._processor, folder, max_seq_len=max_seq_len, name=self._name)
        (folder / MODEL_FILE).write_bytes(self._model)

    def _check(self, ids: Sequence[int]) -> None:
        if len(ids) and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            raise ShapeError(
                where="token ids",
                expected=f"ids from 0 to {self.vocab_size - 1}",
                got=f"{min(ids)} to {max(ids)}",
                fix="Use the tokenizer that the model was trained with.",
            )


def _parse(model: bytes, name: str) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=model) if model else None
    except RuntimeError:
        processor = None
    if processor is None or min(processor.bos_id(), processor.eos_id(), processor.unk_id()) < 0:
        raise CheckpointError(
            where=name,
            expected="a SentencePiece model with <s>, </s> and <unk>",
            got=f"{len(model)} bytes that are not one",
            fix="Restore the file, or train the tokenizer again.",
        )
    return processor


def _text_error(texts: Sequence[str]) -> DataError | None:
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
