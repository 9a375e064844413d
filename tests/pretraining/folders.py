"""Inputs of pretraining made from a few sentences: a tokenizer, token shards, a recipe of seconds."""

import json
import random
from pathlib import Path

import numpy as np

from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

ANIMALS, FOODS = ("llama", "goat", "hen", "sheep"), ("hay", "corn", "grass", "oats")
RECIPE = """
[pretraining]
model = { dim = 32, n_layers = 2, n_heads = 2, n_kv_heads = 2, hidden_dim = 64, vocab_size = 300, max_seq_len = 64 }
seq_len = 32

[pretraining.loop]
optimizer = { peak_lr = 1e-2 }
total_steps = 30
warmup_steps = 4
batch_size = 8
micro_batch_size = 2
log_every_steps = 1
checkpoint_every_steps = 5

[safeguards]
permanent_every_steps = 20
"""


def sentences(seed: int, n: int) -> list[str]:
    draw = random.Random(seed)
    return [
        f"The {draw.choice(ANIMALS)} eats {draw.choice(FOODS)} at {draw.randint(1, 12)}." for _ in range(n)
    ]


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    train_tokenizer(sentences(0, 500), folder / "tokenizer.model", TokenizerConfig(vocab_size=300))


def write_shards(folder: Path, tokenizer_folder: Path) -> None:
    """Two training shards and two held-out sources, in the format of training/token_shards.py."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    shards = folder / "shards"
    shards.mkdir(parents=True)

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


def write_recipe(path: Path) -> None:
    path.write_text(RECIPE)
