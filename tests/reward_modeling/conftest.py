"""Tiny models and comparisons, made once for this folder's tests."""

from pathlib import Path

import pytest

from puna.core.records import write_records
from ranked_pairs import comparison
from tiny_chat_models import save_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a chat model and its two reward models."""
    return save_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the preferences stage leaves it: 96 and 32 pairs of each guideline."""
    folder = tmp_path_factory.mktemp("preferences")
    for name, numbers in (("train", range(96)), ("test", range(100, 132))):
        pairs = [
            comparison(i, guideline=guideline) for guideline in ("helpfulness", "safety") for i in numbers
        ]
        write_records(folder / f"{name}.jsonl", pairs)
    return folder
