"""Models small enough to build in milliseconds, with every mechanism of the large ones."""

import pytest

from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=64
    )


@pytest.fixture(scope="session")
def model(tiny: ModelConfig) -> Transformer:
    """Weights a little larger than usual, so that attention is far from uniform and a wrong mask shows."""
    model = Transformer(tiny, seed=3).requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight *= 1.2
    return model
