"""`puna convert`: the command, its results and its refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from puna.core.inputs import resolve_path
from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=64
    )
    save_model(Transformer(config, seed=1), tmp_path / "model")
    return tmp_path / "model"


def test_there_and_back(say, folder: Path, tmp_path: Path) -> None:
    meta, back = tmp_path / "meta", tmp_path / "back"
    said = say("convert", folder, meta, "--to", "meta", "--shards", 2, "--json")
    before = load_file(folder / "model.safetensors")
    n_parameters = sum(tensor.numel() for tensor in before.values())
    facts = json.loads(said.stdout)
    assert facts.pop("bytes") == sum(path.stat().st_size for path in meta.iterdir())
    assert facts == {
        "target": str(meta), "format": "meta", "parameters": n_parameters, "tensors": 21, "tokenizer": False,
    }  # fmt: skip
    said = say("convert", meta, back, "--to", "hf")
    assert said.exit_code == 0
    assert "no tokenizer lay beside the weights" in said.stdout
    shown = say("lineage", back, "--verify").stdout.splitlines()
    assert "model version=converted" in shown[0]
    assert "source: folder" in shown[1]
    assert str(meta) in shown[1]
    after = load_file(back / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "meta", "--shards", "4"], "which does not divide n_kv_heads 2"),
        (["--to", "hf", "--shards", "2"], "--to meta"),
        (["--to", "hf", "--dtype", "q8_0"], "--to gguf"),
        (["--to", "hf", "--tokenizer", "nowhere"], "no such file"),
    ],
)
def test_user_mistakes_are_one_message(
    say, folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    said = say("convert", folder, tmp_path / "out", *options)
    assert said.exit_code == 2
    assert message in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()


def test_sources_that_are_none(say, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for source, message in (
        ("nowhere", "no such file"),
        ("empty", "neither in it"),
        ("text.txt", "another kind"),
    ):
        said = say("convert", tmp_path / source, tmp_path / "out", "--to", "hf")
        assert said.exit_code == 2
        assert message in said.stderr


def test_an_existing_target_is_left_alone(say, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    said = say("convert", folder, tmp_path / "out", "--to", "meta")
    assert said.exit_code == 2
    assert "Nothing is overwritten" in said.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_killed_command_goes_on(say, folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the work; the second run ends with the bytes of an undisturbed one."""
    program = (
        "import time\n"
        "from puna.cli.main import main\n"
        "from puna.conversion import writer\n"
        "record = writer.Workspace.record\n"
        "def slowly(self, *arguments):\n"
        "    record(self, *arguments)\n"
        "    time.sleep(0.2)\n"
        "writer.Workspace.record = slowly\n"
        f"main(['convert', {str(folder)!r}, {str(tmp_path / 'out')!r}, '--to', 'meta', '--shards', '2'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    journal = tmp_path / ".out.partial" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    for name in ("out", "whole"):
        assert say("convert", folder, tmp_path / name, "--to", "meta", "--shards", 2).exit_code == 0
    out, whole = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("out", "whole"))
    assert out == whole


@pytest.mark.real
def test_the_released_story_from_the_command_line(say, tmp_path: Path) -> None:
    released, target = resolve_path("PUNA_DATA/weights/stories260K"), tmp_path / "stories"
    say("convert", released / "stories260K.bin", target, "--to", "hf", "--tokenizer", released / "tok512.bin")
    prompt = "Once upon a time"
    said = say("generate", target, "--prompt", prompt, "--max-new-tokens", 200, "--temperature", 0, "--json")
    (sample,) = json.loads(said.stdout)["samples"]
    expected = (released / "expected_greedy_200.txt").read_text().rstrip("\n")
    assert (prompt + sample["text"]).startswith(expected)
