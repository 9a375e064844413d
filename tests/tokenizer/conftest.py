"""A small tokenizer trained once, and the released Llama 2 one where PUNA_DATA has it."""

import os
from pathlib import Path

import pytest

from puna.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

VOCAB_SIZE = 420


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Sentences with digits, spaces in runs, code and accents; always the same."""
    animals = ["llama", "goat", "hen", "alpaca", "mule", "café dog"]
    verbs = ["eats", "finds", "carries", "watches"]
    lines = [
        f"The {animal} {verb} {number} apples near the red barn, and  then sleeps."
        for number in range(0, 60, 7)
        for animal in animals
        for verb in verbs
    ]
    code = [f"    def count_{animal.split()[0]}(n):\n        return n + {len(animal)}" for animal in animals]
    return [*lines, *code * 10, "[INST] Which animal eats apples? [/INST] The llama. "] * 2


@pytest.fixture(scope="session")
def model_file(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(corpus, path, TokenizerConfig(vocab_size=VOCAB_SIZE))
    return path


@pytest.fixture(scope="session")
def tokenizer(model_file: Path) -> Tokenizer:
    return Tokenizer.load(model_file)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("PUNA_DATA")
    if not folder:
        pytest.skip("PUNA_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def llama2(real_data: Path) -> Tokenizer:
    path = real_data / "tokenizers" / "llama2" / "tokenizer.model"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return Tokenizer.load(path)
