"""`puna convert`: the command, its results and its refusals."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
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


@pytest.mark.parametrize("to", ["meta", "gguf"])
def test_a_killed_command_leaves_nothing_to_be_mixed_in(say, folder: Path, tmp_path: Path, to: str) -> None:
    """SIGKILL while tensors are written, 12 read; the second run ends with the bytes of an undisturbed one."""
    whole = tmp_path / "whole" / "out"
    whole.parent.mkdir()
    program = (
        "import os, signal\n"
        "from puna.cli.main import main\n"
        "from puna.conversion.hugging_face import HuggingFaceSource\n"
        "read, names = HuggingFaceSource.read, []\n"
        "def killing(self, name):\n"
        "    names.append(name)\n"
        "    if len(names) == 12:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return read(self, name)\n"
        "HuggingFaceSource.read = killing\n"
        f"main(['convert', {str(folder)!r}, {str(tmp_path / 'out')!r}, '--to', {to!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial").exists()
    for target in (tmp_path / "out", whole):
        assert say("convert", folder, target, "--to", to).exit_code == 0
    assert not (tmp_path / ".out.partial").exists()
    out, undisturbed = (
        {path.name: path.read_bytes() for path in ([root] if root.is_file() else root.iterdir())}
        for root in (tmp_path / "out", whole)
    )
    assert out == undisturbed


class Attack:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_hostile_files_are_one_message(say, folder: Path, tmp_path: Path) -> None:
    """A function in a .pth, and headers that promise more than the file holds."""
    pth = tmp_path / "pth"
    say("convert", folder, pth, "--to", "meta")
    (pth / "checklist.chk").unlink()
    torch.save({"a": Attack(tmp_path / "it-ran")}, pth / "consolidated.00.pth")
    gguf = tmp_path / "huge.gguf"
    gguf.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    cut = tmp_path / "cut.gguf"
    say("convert", folder, cut, "--to", "gguf")
    cut.write_bytes(cut.read_bytes()[:-5000])
    llama2c = tmp_path / "model.bin"
    llama2c.write_bytes(struct.pack("<7i", 4096, 11008, 32, 32, 32, 32000, 4096) + bytes(99))
    for source, message in (
        (pth, "unsupported GLOBAL posix.system"),
        (gguf, "a whole GGUF file"),
        (cut, "bytes are promised"),
        (llama2c, "as its header says"),
    ):
        said = say("convert", source, tmp_path / "out", "--to", "hf")
        assert said.exit_code == 2
        assert message in said.stderr.replace("\n", " ")
        assert "Traceback" not in said.stderr
        assert not (tmp_path / "out").exists()
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.real
def test_the_released_story_from_the_command_line(say, tmp_path: Path) -> None:
    released, target = resolve_path("PUNA_DATA/weights/stories260K"), tmp_path / "stories"
    say("convert", released / "stories260K.bin", target, "--to", "hf", "--tokenizer", released / "tok512.bin")
    prompt = "Once upon a time"
    said = say("generate", target, "--prompt", prompt, "--max-new-tokens", 200, "--temperature", 0, "--json")
    (sample,) = json.loads(said.stdout)["samples"]
    expected = (released / "expected_greedy_200.txt").read_text().rstrip("\n")
    assert (prompt + sample["text"]).startswith(expected)
