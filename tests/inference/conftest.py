"""A tiny model whose next-token distribution is far from uniform, and a tokenizer of bare ids."""

from collections.abc import Sequence

import pytest

from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


class IdTokenizer:
    """Text is the ids with spaces; id 0 is a space, so that stripping shows."""

    eos_id = 2
    stop_ids = (2,)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f"{i}," if i else " " for i in ids)


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=64
    )


@pytest.fixture(scope="session")
def model(tiny: ModelConfig) -> Transformer:
    model = Transformer(tiny, seed=3).requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight *= 1.1
    return model


@pytest.fixture(scope="session")
def tokenizer() -> IdTokenizer:
    return IdTokenizer()
