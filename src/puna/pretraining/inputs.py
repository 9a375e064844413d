"""Token shards and tokenizer must be one pair: ids mean nothing without the vocabulary that gave them."""

from pathlib import Path

from puna.core.errors import DataError
from puna.core.manifest import MANIFEST_NAME, fingerprint_input, read_manifest
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.token_shards import TokenStream, read_index, shard_dtype

__all__ = ["check_inputs"]

PROBED_TOKENS = 1_000_000
"""Tokens at the start of the stream whose ids are looked at before training; every batch is looked at later."""


def check_inputs(data: Path, tokenizer_path: Path, tokenizer: Tokenizer) -> None:
    """Refuse shards that another tokenizer made.

    Raises:
        DataError: the shards' manifest names another tokenizer, their width is another vocabulary's, or an id lies
            outside the vocabulary.
    """
    index = read_index(data)
    if index.dtype != shard_dtype(tokenizer.vocab_size):
        raise _other(
            data, f"{shard_dtype(tokenizer.vocab_size)} ids of its {tokenizer.vocab_size}", index.dtype
        )
    stream = TokenStream(data, index.train, index.dtype)
    probe = stream.read(0, PROBED_TOKENS)
    if len(probe) and int(probe.max()) >= tokenizer.vocab_size:
        raise _other(data, f"ids below the tokenizer's {tokenizer.vocab_size}", f"id {int(probe.max())}")
    if not (data / MANIFEST_NAME).is_file():
        return
    made_with = read_manifest(data).inputs.get("tokenizer")
    if made_with is None or made_with.fingerprint == fingerprint_input(tokenizer_path):
        return
    original = made_with.locate(data)
    is_there = original.exists() and fingerprint_input(original) == made_with.fingerprint
    if not is_there or _vocabulary(Tokenizer.load(original)) != _vocabulary(tokenizer):
        raise _other(data, f"the tokenizer they were made with, {original}", str(tokenizer_path))


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(range(tokenizer.vocab_size))


def _other(data: Path, expected: str, got: str) -> DataError:
    return DataError(
        where=str(data),
        expected=expected,
        got=got,
        fix="Give the tokenizer that made these shards, or run the tokenize stage again.",
    )
