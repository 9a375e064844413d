"""The files of a tokenizer in a model folder, as this program and Hugging Face software read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.core.storage import write_json
from puna.tokenizer.imported.special_tokens import SideFiles
from puna.tokenizer.sentencepiece_backend import SentencePieceBackend

__all__ = ["MODEL_FILE", "TOKENIZER_JSON", "write_imported", "write_sentencepiece"]

MODEL_FILE = "tokenizer.model"
TOKENIZER_JSON = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIALS_FILE = "special_tokens_map.json"


def write_sentencepiece(backend: SentencePieceBackend, config: Mapping[str, Any], folder: Path) -> None:
    """tokenizer.model, a tokenizer.json that equals it, and their configs.

    Args:
        config: The tokens with a role, the context length and the chat template.
    """
    _write(folder / TOKENIZER_JSON, json.loads(backend.fast.to_str()))
    specials = {key: value for key, value in config.items() if key.endswith("_token")}
    # LlamaTokenizer would build another backend and ignore the normalizer of tokenizer.json.
    flags = {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False}
    _write(folder / CONFIG_FILE, {"tokenizer_class": "PreTrainedTokenizerFast", **config, **flags})
    _write(folder / SPECIALS_FILE, specials)
    (folder / MODEL_FILE).write_bytes(backend.model)


def write_imported(content: bytes, files: SideFiles, config: Mapping[str, Any], folder: Path) -> None:
    """A tokenizer.json as it came, with the configs that came with it, brought up to date."""
    (folder / TOKENIZER_JSON).write_bytes(content)
    if files.sentencepiece_model is not None:
        (folder / MODEL_FILE).write_bytes(files.sentencepiece_model)
    specials = {key: value for key, value in config.items() if key.endswith("_token")}
    # transformers must read this very tokenizer.json, not build a tokenizer of its own.
    base = {"clean_up_tokenization_spaces": False, **files.tokenizer_config}
    _write(folder / CONFIG_FILE, {**base, **config, "tokenizer_class": "PreTrainedTokenizerFast"})
    _write(folder / SPECIALS_FILE, {**files.special_tokens_map, **specials})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_json(path, content, indent=1, ensure_ascii=False)
