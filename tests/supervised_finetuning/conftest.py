"""A base model with random weights and a tokenizer made from a few dialogs."""

import random
from pathlib import Path

import pytest

from puna.core.records import Dialog, Message
from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.tokenizer.chat_format import prompt_text
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

ANIMALS, FOODS = ("llama", "goat", "hen", "sheep"), ("hay", "corn", "grass", "oats")


def make_dialogs(seed: int, n: int, *, n_turns: int = 1) -> list[Dialog]:
    draw = random.Random(seed)
    dialogs = []
    for number in range(n):
        messages = []
        for _ in range(n_turns):
            animal, food = draw.choice(ANIMALS), draw.choice(FOODS)
            count = draw.randint(2, 99)
            messages.append(Message(role="user", content=f"What do {count} {animal}s eat?"))
            messages.append(Message(role="assistant", content=f"{count} {animal}s eat {food}."))
        dialogs.append(Dialog(id=f"{seed}-{number}", messages=tuple(messages)))
    return dialogs


@pytest.fixture(scope="session")
def dialogs() -> list[Dialog]:
    return make_dialogs(0, 60) + make_dialogs(1, 20, n_turns=2)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    texts = [prompt_text(dialog.messages) for dialog in make_dialogs(9, 300)]
    train_tokenizer(texts, folder / "tokenizer.model", TokenizerConfig(vocab_size=310))
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "hidden_dim": 64, "max_seq_len": 128}
    save_model(Transformer(ModelConfig(vocab_size=310, **sizes)), folder)
    Tokenizer.load(folder).save(folder, max_seq_len=128)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base_model: Path) -> Tokenizer:
    return Tokenizer.load(base_model)
