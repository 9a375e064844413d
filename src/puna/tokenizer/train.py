"""Train a SentencePiece BPE tokenizer with Llama 2's settings (§2.2), as a function and as a stage."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field
from sentencepiece import SentencePieceTrainer

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import ConfigError, DataError, RecipeError
from puna.core.records import Dialog, open_text, read_records
from puna.core.stage import Metrics, stage
from puna.tokenizer.chat_format import B_INST, prompt_text
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["SAMPLE_FILE", "TokenizerConfig", "build_tokenizer", "train_tokenizer"]

SAMPLE_FILE = "tokenizer_sample.txt"
"""In the pretraining data folder: the text to learn pieces from, one paragraph a line."""

MAX_PIECE_CHARS = 16
"""Longest piece (released model)."""

LINE_ENDS = re.compile("[\n\N{LOWER FIVE EIGHTHS BLOCK}]")
"""SentencePiece keeps U+2585 for itself and would drop a line that holds one."""


class TokenizerConfig(Settings):
    """Llama 2's tokenizer (§2.2); values the paper leaves open are those inside the released tokenizer.model."""

    vocab_size: int = Field(default=32_000, ge=260)
    """Number of pieces, with 3 control and 256 byte pieces (§2.2)."""
    character_coverage: float = Field(default=0.99995, gt=0, le=1)
    """Share of the text's characters that get a piece of their own; the rest fall back to bytes (released model)."""
    max_sentence_length_bytes: int = Field(default=4192, ge=10)
    """Longest training line (released model); SentencePiece drops longer ones, we split them."""
    learn_from_dialogs: bool = True
    """Also learn from the dialogs given, so that the chat markers get pieces. Our choice; Llama 2 did not."""
    max_seq_len: int = Field(default=4096, ge=1)
    """Context in tokens recorded for other software (Table 1); each model records its own."""


def train_tokenizer(texts: Iterable[str], model_path: Path, config: TokenizerConfig) -> None:
    """Learn pieces from texts, read once as a stream, and write a SentencePiece model file.

    The same texts give the same bytes: one thread, no shuffling.

    Raises:
        DataError: there is no text, or too little for the vocabulary: names the largest size it allows.
        ConfigError: the vocabulary is too small for the text's characters: names the smallest size.
    """
    lines = _TrainingLines(texts, config.max_sentence_length_bytes)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, **_trainer_options(config)
        )
    except RuntimeError as error:
        if lines.failure is not None:
            raise lines.failure from None
        raise _training_error(str(error), config, lines.n_lines) or error from None
    model_path.parent.mkdir(parents=True, exist_ok=True)
    model_path.write_bytes(model.getvalue())


@stage("tokenizer")
def build_tokenizer(
    config: TokenizerConfig, context: StageContext, *, data: Path, dialogs: Path | None = None
) -> Metrics:
    """Learn a tokenizer from pretraining data, and from dialogs if given; the folder loads in transformers.

    The seed is recorded only: nothing here is random.

    Args:
        data: A pretraining data artifact.
        dialogs: A JSON Lines file of `Dialog`s.
    """
    model_path = context.folder / "tokenizer.model"
    train_tokenizer(_training_texts(config, data, dialogs), model_path, config)
    tokenizer = Tokenizer.load(model_path)
    tokenizer.save(context.folder, max_seq_len=config.max_seq_len)
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": _bytes_per_token(tokenizer, data / SAMPLE_FILE),
        "inst_tokens": len(tokenizer.encode(B_INST)),
    }


class _TrainingLines:
    """The texts as UTF-8 lines short enough for SentencePiece, which hides what an iterator raises."""

    def __init__(self, texts: Iterable[str], max_bytes: int) -> None:
        self.n_lines = 0
        self.failure: BaseException | None = None
        self._texts = texts
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            for text in self._texts:
                for line in LINE_ENDS.split(text):
                    for part in split_line(line.encode(), self._max_bytes):
                        self.n_lines += 1
                        yield part
        except UnicodeEncodeError as error:
            self.failure = DataError(
                where=f"training text, after line {self.n_lines}",
                expected="valid Unicode text",
                got=str(error),
                fix="Decode the input as UTF-8 with errors='replace'.",
            )
            raise self.failure from None
        except (RecipeError, OSError, KeyboardInterrupt) as error:
            self.failure = error
            raise


def split_line(line: bytes, max_bytes: int) -> Iterator[bytes]:
    """Cut a UTF-8 line into parts of at most max_bytes, at a space where there is one, never inside a character.

    The space of a cut is dropped: the next part's dummy prefix stands for it, so word counts do not change.
    """
    while len(line) > max_bytes:
        cut = line.rfind(b" ", 1, max_bytes + 1)
        rest = cut + 1
        if cut < 0:
            cut = max_bytes
            while line[cut] & 0xC0 == 0x80:  # a continuation byte
                cut -= 1
            rest = cut
        yield line[:cut]
        line = line[rest:]
    if line.strip():
        yield line


def _trainer_options(config: TokenizerConfig) -> dict[str, Any]:
    """SentencePiece's options: §2.2 names BPE, split digits and bytes; the rest is read off the released model."""
    return {
        "model_type": "bpe",
        "vocab_size": config.vocab_size,
        "character_coverage": config.character_coverage,
        "max_sentencepiece_length": MAX_PIECE_CHARS,
        "max_sentence_length": config.max_sentence_length_bytes,
        "split_digits": True,
        "split_by_unicode_script": True,
        "split_by_whitespace": True,
        "split_by_number": True,
        "byte_fallback": True,
        "allow_whitespace_only_pieces": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": False,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "num_threads": 1,
        "shuffle_input_sentence": False,
        "minloglevel": 2,
    }


def _training_error(message: str, config: TokenizerConfig, n_lines: int) -> RecipeError | None:
    """What SentencePiece's message means for the user; None when it is not about their text or settings."""
    size = f"vocab_size = {config.vocab_size}"
    if n_lines == 0:
        fix = "Give at least a few paragraphs of text."
        return DataError(where="training text", expected="some text to learn from", got="none", fix=fix)
    if too_high := re.search(r"set it to a value <= (\d+)", message):
        largest = too_high.group(1)
        fix = f"Set vocab_size to {largest} or less, or give more text."
        return DataError(
            where="training text",
            expected=f"enough text for {size}",
            got=f"{n_lines} lines, enough for {largest} pieces at most",
            fix=fix,
        )
    if too_low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        smallest = too_low.group(1)
        fix = f"Set vocab_size to {smallest} or more, or lower character_coverage."
        return ConfigError(
            where="vocab_size",
            expected=f"at least {smallest}, one piece a character",
            got=str(config.vocab_size),
            fix=fix,
        )
    return None


def _training_texts(config: TokenizerConfig, data: Path, dialogs: Path | None) -> Iterator[str]:
    yield from _sample_lines(data / SAMPLE_FILE)
    if dialogs is not None and config.learn_from_dialogs:
        for dialog in read_records(dialogs, Dialog):
            yield prompt_text(dialog.messages)


def _sample_lines(path: Path) -> Iterator[str]:
    try:
        with open_text(path) as stream:
            for line in stream:
                yield line.rstrip("\n")
    except FileNotFoundError:
        raise DataError(
            where=str(path.parent),
            expected=f"a pretraining data folder with {path.name}",
            got="no such file",
            fix="Build the pretraining data first.",
        ) from None
    except UnicodeDecodeError as error:
        fix = "The file is damaged: build the pretraining data again."
        raise DataError(where=str(path), expected="UTF-8 text", got=str(error), fix=fix) from None


def _bytes_per_token(tokenizer: Tokenizer, path: Path) -> float:
    """UTF-8 bytes of the sample's lines per token."""
    n_bytes = n_tokens = 0
    for line in _sample_lines(path):
        n_bytes += len(line.encode())
        n_tokens += len(tokenizer.encode(line))
    return n_bytes / max(n_tokens, 1)
