"""The tokenizer that travels with a checkpoint: found beside the weights, or named by the user."""

import tempfile
from pathlib import Path

from puna.conversion.llama2c_tokenizer import is_llama2c_tokenizer, read_llama2c_tokenizer
from puna.core.errors import DataError
from puna.model.generation_config import GenerationConfig
from puna.tokenizer.tokenizer import MODEL_FILE, Tokenizer

__all__ = ["folder_tokenizer", "generation_of", "given_tokenizer"]


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


def generation_of(tokenizer: Tokenizer | None) -> GenerationConfig:
    """Special tokens as the tokenizer has them; Llama 2's own without one."""
    if tokenizer is None:
        return GenerationConfig()
    return GenerationConfig(
        bos_id=tokenizer.bos_id if tokenizer.has_bos else None, eos_ids=tokenizer.stop_ids, pad_id=0
    )
