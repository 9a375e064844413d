"""Train a tokenizer on files of one's own: plain text, or JSON Lines with a "text", compressed or not."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard
from pydantic import BaseModel

from puna.core.artifacts import StageContext
from puna.core.errors import DataError
from puna.core.records import open_text, read_records
from puna.core.stage import Metrics, stage
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import SAMPLE_FILE, TokenizerConfig, train_tokenizer

__all__ = ["train_on_files"]


class TextLine(BaseModel):
    """A line of JSON with a text; whatever else it holds is not read."""

    text: str


@stage("tokenizer")
def train_on_files(config: TokenizerConfig, context: StageContext, *, files: Sequence[Path]) -> Metrics:
    """Learn a tokenizer from text files, read in their order.

    The seed is recorded only: nothing here is random.

    Args:
        files: .txt or anything else read as lines of text, .jsonl with a "text" a line, each also as .gz or .zst; or
            the folder of a data stage.
    Raises:
        DataError: a file is missing, is no UTF-8, or holds no text.
    """
    paths = [path / SAMPLE_FILE if path.is_dir() else path for path in files]
    model_path = context.folder / "tokenizer.model"
    train_tokenizer((text for path in paths for text in _texts(path)), model_path, config)
    tokenizer = Tokenizer.load(model_path)
    tokenizer.save(context.folder, max_seq_len=config.max_seq_len)
    n_bytes = n_tokens = 0
    for path in paths:
        for text in _texts(path):
            n_bytes += len(text.encode())
            n_tokens += len(tokenizer.encode(text))
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": n_bytes / max(n_tokens, 1),
        "n_bytes": n_bytes,
    }


def _texts(path: Path) -> Iterator[str]:
    """The texts of a file."""
    if ".jsonl" in path.suffixes[-2:]:
        for line in read_records(path, TextLine):
            yield line.text
        return
    try:
        with open_text(path) as stream:
            for text in stream:
                yield text.rstrip("\n")
    except FileNotFoundError:
        fix = "Check the path."
        raise DataError(where=str(path), expected="a text file", got="no such file", fix=fix) from None
    except (UnicodeDecodeError, EOFError, OSError, zstandard.ZstdError) as error:
        fix = "Convert the file to UTF-8, or restore it if it is compressed."
        raise DataError(where=str(path), expected="UTF-8 text", got=str(error), fix=fix) from None
