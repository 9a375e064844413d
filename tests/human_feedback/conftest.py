"""Tiny models, made once for this folder's tests."""

from pathlib import Path

import pytest

from tiny_chat_models import save_chat_model, tiny_tokenizer


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two chat models with one tokenizer."""
    root = tmp_path_factory.mktemp("variants")
    tokenizer = tiny_tokenizer(root / "tokenizer")
    return [save_chat_model(root / f"model-{seed}", tokenizer, seed=seed) for seed in (1, 2)]
