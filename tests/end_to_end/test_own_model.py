"""The page on aligning a model that one has: its files and its commands as printed, with a tiny model as SmolLM2."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from end_to_end.imported_files import write_files
from end_to_end.program import Ended
from puna.core.manifest import read_manifest
from puna.core.records import Dialog, read_records
from test_docs import ROOT, blocks, files_shown
from tiny_chat_models import save_chat_model, tiny_tokenizer

PAGE = ROOT / "docs" / "tutorials" / "own_model.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the TOML files of the page, data under PUNA_DATA, and a model to convert."""
    for name, text in files_shown(PAGE).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PUNA_DATA", str(write_files(tmp_path / "files")))
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    save_chat_model(tmp_path / "tiny", tokenizer, seed=1, max_seq_len=512)
    return tmp_path


def test_the_commands_run_as_printed(call: Callable[..., Ended], place: Path) -> None:
    said = call("convert", "tiny", "SmolLM2-135M-Instruct.gguf", "--to", "gguf")
    assert said.exit_code == 0, said.stderr
    commands, recipe = blocks(PAGE, "sh")
    for line in commands.splitlines():
        said = call(*shlex.split(line)[1:])
        assert said.exit_code == 0, f"{line}\n{said.stderr}"
    assert read_manifest(place / "ppo").labels["version"] == "ppo"
    assert read_manifest(place / "rm-s").labels["role"] == "safety"
    selected = list(read_records(place / "samples" / "selected.jsonl", Dialog))
    assert {dialog.guideline for dialog in selected} == {"helpfulness", "safety"}
    assert read_manifest(place / "evaluation").metrics["n"] == 8
    said = call(*shlex.split(recipe)[1:])
    assert said.exit_code == 0, said.stderr
    assert (place / "runs/own/rlhf-v1-ppo/model.safetensors").is_file()
    assert not (place / "runs/own/pretrained").exists()
