import json
from pathlib import Path
from typing import Any

import pytest

from puna.core.errors import CheckpointError
from puna.model.generation_config import GenerationConfig, read_generation_config, write_generation_config
from puna.model.hf_config import GENERATION_CONFIG


def folder_of(path: Path, generation: dict[str, Any] | None, config: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def test_defaults_are_metas(tmp_path: Path) -> None:
    write_generation_config(GenerationConfig(), tmp_path, max_length=77)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "max_length": 77,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    assert GenerationConfig().token_ids().items() <= GENERATION_CONFIG.items()


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {"bos_token_id": 5, "eos_token_id": 6}, (5, (6,), None)),
        ({}, {"bos_token_id": 5, "eos_token_id": [6, 7], "pad_token_id": -1}, (5, (6, 7), None)),
        ({"eos_token_id": [1, 2], "bos_token_id": 128000}, {"eos_token_id": 9}, (128000, (1, 2), None)),
        ({"eos_token_id": -1, "pad_token_id": 4}, {}, (None, (), 4)),
    ],
)
def test_ids_come_from_the_nearer_file(
    tmp_path: Path,
    generation: dict[str, Any] | None,
    config: dict[str, Any],
    expected: tuple[int | None, tuple[int, ...], int | None],
) -> None:
    found = read_generation_config(folder_of(tmp_path, generation, config))
    assert (found.bos_id, found.eos_ids, found.pad_id) == expected


def test_other_keys_survive_a_round_trip(tmp_path: Path) -> None:
    written = {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.1, "max_length": 9, "unknown": [1, {}]}
    found = read_generation_config(folder_of(tmp_path, written, {}))
    write_generation_config(found, tmp_path, max_length=77)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == written


@pytest.mark.parametrize("ids", [{"eos_token_id": ["</s>"]}, {"bos_token_id": 1.5}, {"pad_token_id": True}])
def test_ids_that_are_no_numbers_are_named(tmp_path: Path, ids: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="token ids that are whole numbers"):
        read_generation_config(folder_of(tmp_path, ids, {}))
