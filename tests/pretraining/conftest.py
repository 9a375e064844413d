"""A tokenizer and token shards made from a few sentences."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

ANIMALS, FOODS = ("llama", "goat", "hen", "sheep"), ("hay", "corn", "grass", "oats")


def sentences(seed: int, n: int) -> list[str]:
    draw = random.Random(seed)
    return [
        f"The {draw.choice(ANIMALS)} eats {draw.choice(FOODS)} at {draw.randint(1, 12)}." for _ in range(n)
    ]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(sentences(0, 500), folder / "tokenizer.model", TokenizerConfig(vocab_size=300))
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Two training shards and two held-out sources, in the format of training/token_shards.py."""
    folder, tokenizer = tmp_path_factory.mktemp("data"), Tokenizer.load(tokenizer_folder)
    shards = folder / "shards"
    shards.mkdir()

    def write(name: str, seed: int, n: int) -> dict[str, str | int]:
        ids = [i for text in sentences(seed, n) for i in tokenizer.encode(text, bos=True, eos=True)]
        (shards / name).write_bytes(np.array(ids, dtype="<u2").tobytes())
        return {"file": name, "n_tokens": len(ids)}

    index = {
        "dtype": "uint16",
        "train": [write("train-00000.bin", 1, 300), write("train-00001.bin", 2, 200)],
        "validation": {"farm": write("farm.bin", 3, 30), "tiny": write("tiny.bin", 4, 1)},
    }
    (shards / "index.json").write_text(json.dumps(index))
    return folder
