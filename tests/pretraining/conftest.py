"""A tokenizer and token shards made from a few sentences."""

from pathlib import Path

import pytest

from pretraining.folders import write_shards, write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Two training shards and two held-out sources, in the format of training/token_shards.py."""
    folder = tmp_path_factory.mktemp("data")
    write_shards(folder, tokenizer_folder)
    return folder
