"""Small checkpoints that every shard count divides, with an untied and a tied one, and a tokenizer to travel along."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

VOCAB_SIZE = 296


@pytest.fixture(scope="session")
def shardable() -> ModelConfig:
    return ModelConfig(
        dim=96, n_layers=2, n_heads=16, n_kv_heads=8, vocab_size=VOCAB_SIZE, hidden_dim=40, norm_eps=1e-6,
        max_seq_len=64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=64
    )


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    text = ["the red fox sees 17 small goats near a river and runs home", "a goat eats hay and oats all day"]
    train_tokenizer(text * 20, path, TokenizerConfig(vocab_size=VOCAB_SIZE))
    return path


MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path, shardable: ModelConfig, tokenizer_model: Path) -> MakeFolder:
    """Write a Hugging Face folder; weights are large enough that a wrong layout shows in the logits."""

    def make(
        dtype: torch.dtype = torch.float32, *, seed: int = 5, tied: bool = False, name: str = "hf"
    ) -> Path:
        model = Transformer(shardable.model_copy(update={"tie_embeddings": tied}), seed=seed).requires_grad_(
            False
        )
        for weight in model.parameters():
            weight *= 1.2 if weight.ndim == 2 else 1 + 0.1 * torch.rand(weight.shape)
        folder = tmp_path / name
        save_model(model, folder, dtype=dtype)
        Tokenizer.load(tokenizer_model).save(folder, max_seq_len=shardable.max_seq_len)
        return folder

    return make
