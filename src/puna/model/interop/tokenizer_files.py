"""The tokenizer that travels with a checkpoint: found beside the weights, or named by the user."""

import tempfile
from pathlib import Path

from puna.core.errors import DataError
from puna.model.hf_config import broken
from puna.model.interop.llama2c_tokenizer import is_llama2c_tokenizer, read_llama2c_tokenizer
from puna.tokenizer.tokenizer import MODEL_FILE, Tokenizer

__all__ = ["folder_tokenizer", "given_tokenizer", "save_sentencepiece"]


def folder_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in a model folder, if there is one.

    Raises:
        CheckpointError: there is one, damaged.
    """
    try:
        return Tokenizer.load(folder)
    except DataError:
        return None


def given_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that the user names: a folder, a file of one, or llama2.c's tokenizer.bin.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, or of no known kind.
    """
    if path.is_file() and is_llama2c_tokenizer(path):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / MODEL_FILE
            model.write_bytes(read_llama2c_tokenizer(path))
            return Tokenizer.load(model)
    return Tokenizer.load(path)


def save_sentencepiece(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.model alone, the only form that Meta's code reads.

    Raises:
        CheckpointError: the tokenizer is of another kind.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save(Path(scratch), max_seq_len=1)
        model = Path(scratch) / MODEL_FILE
        if not model.is_file():
            raise broken(
                folder, f"a SentencePiece tokenizer, as Meta's code reads {MODEL_FILE}", "another kind"
            )
        (folder / MODEL_FILE).write_bytes(model.read_bytes())
