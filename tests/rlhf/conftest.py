"""Tiny models, made once for this folder's tests."""

from pathlib import Path

import pytest

from tiny_chat_models import save_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a chat model and its two reward models."""
    return save_world(tmp_path_factory.mktemp("world"))
