"""Folders against transformers, both ways, and against damage."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from llama_configs import configs, sharpened, text
from puna.core.errors import CheckpointError
from puna.model.checkpoint import load_model, load_score_model, save_model, save_score_model
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig, read_generation_config
from puna.model.heads import ScoreModel
from puna.model.hf_rope import rope_to_hf
from puna.model.transformer import Transformer


def assert_same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Bit for bit. Logits need not be: a product of very narrow matrices depends on where they lie in memory."""
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name


@settings(max_examples=12)
@given(configs())
def test_our_folder_gives_transformers_the_same_logits(config: ModelConfig) -> None:
    model = sharpened(Transformer(config))
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        theirs = AutoModelForCausalLM.from_pretrained(folder)
        reloaded = load_model(Path(folder), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(theirs(text(config)).logits, model(text(config)), atol=1e-4, rtol=0)
    assert reloaded.config == config
    assert_same_weights(reloaded, model)


@settings(max_examples=8)
@given(configs())
def test_their_folder_gives_us_the_same_logits(config: ModelConfig) -> None:
    torch.manual_seed(0)
    theirs = sharpened(
        LlamaForCausalLM(
            LlamaConfig(
                hidden_size=config.dim,
                intermediate_size=config.hidden_dim,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_kv_heads,
                head_dim=config.head_dim,
                vocab_size=config.vocab_size,
                rms_norm_eps=config.norm_eps,
                rope_parameters=rope_to_hf(config)["rope_parameters"],
                max_position_embeddings=config.max_seq_len,
                tie_word_embeddings=config.tie_embeddings,
                initializer_range=0.02,
            )
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        model = load_model(Path(folder), device="cpu")
    assert model.config == config
    with torch.no_grad():
        torch.testing.assert_close(theirs(text(config)).logits, model(text(config)), atol=1e-4, rtol=0)


@settings(max_examples=8)
@given(configs())
def test_reward_models_agree_with_transformers_both_ways(config: ModelConfig) -> None:
    model = sharpened(ScoreModel(Transformer(config)))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as back:
        save_score_model(model, Path(folder))
        theirs = AutoModelForSequenceClassification.from_pretrained(folder)
        theirs.save_pretrained(back)
        reloaded = load_score_model(Path(back), device="cpu")
    assert theirs.config.num_labels == 1
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(text(config)).logits[:, 0], model(text(config))[:, -1], atol=1e-4, rtol=0
        )
    assert_same_weights(reloaded, model)


def test_shards_load_here_and_in_transformers(model: Transformer, tiny: ModelConfig, tmp_path: Path) -> None:
    save_model(model, tmp_path, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = load_model(tmp_path, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(theirs(text(tiny)).logits, model(text(tiny)), atol=1e-4, rtol=0)
    assert torch.equal(ours(text(tiny)), model(text(tiny)))


def test_stored_dtype_and_ids(model: Transformer, tmp_path: Path) -> None:
    save_model(model, tmp_path, dtype=torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in load_file(tmp_path / "model.safetensors").values())
    assert load_model(tmp_path, device="cpu").output.weight.dtype == torch.float32
    assert load_model(tmp_path, dtype=torch.bfloat16, device="cpu").output.weight.dtype == torch.bfloat16
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["torch_dtype"]) == (1, 2, "bfloat16")
    assert json.loads((tmp_path / "generation_config.json").read_text())["max_length"] == 64


def test_special_tokens_and_sampling_are_kept(model: Transformer, tmp_path: Path) -> None:
    other = {"temperature": 0.2, "transformers_version": "5.0"}
    chosen = GenerationConfig(bos_id=None, eos_ids=(7, 9), pad_id=3, other=other)
    save_model(model, tmp_path, generation=chosen)
    read = read_generation_config(tmp_path)
    assert read == chosen.model_copy(update={"other": {"max_length": 64, **other}})
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == [7, 9]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [7, 9]


def test_loaded_weights_do_not_hang_on_the_file(
    model: Transformer, tiny: ModelConfig, tmp_path: Path
) -> None:
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    before = loaded(text(tiny))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert torch.equal(loaded(text(tiny)), before)


def change_json(**changes: object) -> Callable[[Path], None]:
    """Set keys of config.json; None removes one."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return damage


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def cut(folder: Path, *, to_bytes: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:to_bytes])


def index(**files: str) -> Callable[[Path], None]:
    """An index from tensors to files."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))

    return damage


def second_copy(folder: Path) -> None:
    """The same tensors in two shards, of which one would silently win."""
    (folder / "second.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index(a="model.safetensors", b="second.safetensors")(folder)


def store_as(dtype: torch.dtype) -> Callable[[Path], None]:
    return change_tensors(lambda tensors: tensors.update({NORM: torch.ones(32).to(dtype)}))


def header(content: bytes, *, declared: int | None = None) -> Callable[[Path], None]:
    """A weight file of that header, its length as declared, and sixteen bytes of weights."""
    length = len(content) if declared is None else declared

    def damage(folder: Path) -> None:
        start = struct.pack("<Q", length)
        (folder / "model.safetensors").write_bytes(start + content + bytes(16))

    return damage


NORM = "model.norm.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda folder: cut(folder, to_bytes=5_000), "a whole safetensors file"),
    "empty": (lambda folder: cut(folder, to_bytes=0), "a whole safetensors file"),
    "header cut": (lambda folder: cut(folder, to_bytes=20), "a whole safetensors file"),
    "not safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 500),
        "whole safetensors",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "pickled weights are never read"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: expected"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), "valid JSON"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[1]"), "a JSON object"),
    "config nested": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "valid JSON"),
    "key missing": (change_json(hidden_size=None), "the key hidden_size"),
    "size a string": (change_json(num_hidden_layers="2"), "num_hidden_layers"),
    "size negative": (change_json(vocab_size=-5), "vocab_size"),
    "billions of layers": (change_json(num_hidden_layers=10**9), "num_hidden_layers"),
    "heads do not divide": (change_json(num_key_value_heads=3), "multiple of n_kv_heads"),
    "other family": (change_json(model_type="gpt2"), "model_type 'llama'"),
    "other head": (change_json(architectures=["LlamaForSequenceClassification"]), "architectures"),
    "biases": (change_json(attention_bias=True), "attention_bias False"),
    "other rope": (change_json(rope_scaling={"type": "ntk", "factor": 2.0}), "larger rope_theta"),
    "odd head width": (change_json(head_dim=5), "heads of even width"),
    "other head width": (change_json(head_dim=6), r"q_proj.weight of shape \(24, 32\)"),
    "wrong shape": (change_json(intermediate_size=50), r"shape \(50, 32\).*got shape \(48, 32\)"),
    "missing layer": (change_json(num_hidden_layers=3), "no model.layers.2.input_layernorm.weight"),
    "missing tensor": (change_tensors(lambda tensors: tensors.pop(NORM)), f"no {NORM}"),
    "unknown tensor": (change_tensors(lambda tensors: tensors.update(extra=torch.ones(1))), "also extra"),
    "NaN": (change_tensors(lambda tensors: tensors[NORM].fill_(torch.nan)), f"finite numbers in {NORM}"),
    "one infinity": (change_tensors(lambda tensors: tensors[NORM][3:4].fill_(torch.inf)), "finite numbers"),
    "integers": (
        change_tensors(lambda tensors: tensors.update({NORM: torch.ones(32).int()})),
        "floating-point",
    ),
    "path in index": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'),
        "files of this folder",
    ),
    "pickle in index": (index(a="pytorch_model.bin"), "files of this folder.*got 'pytorch_model.bin'"),
    "empty index": (index(), "files of this folder"),
    "shard missing": (index(a="model.safetensors", b="b.safetensors"), "no such file"),
    "tensor in two shards": (second_copy, "in one file, got it in model.safetensors too"),
    "int8": (store_as(torch.int8), "16 bits or more, got I8"),
    "8-bit floats": (store_as(torch.float8_e4m3fn), "16 bits or more, got F8_E4M3"),
    "beyond float32": (
        change_tensors(lambda tensors: tensors.update({NORM: torch.full((32,), 1e300, dtype=torch.float64)})),
        "finite numbers",
    ),
    "huge header": (header(b"", declared=2**62), "a whole safetensors file"),
    "header longer than the file": (header(b"{}", declared=10**6), "a whole safetensors file"),
    "huge tensor": (
        header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        "a whole safetensors file",
    ),
    "sizes that overflow": (
        header(b'{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,16]}}'),
        "a whole safetensors file",
    ),
    "bytes that do not fit the shape": (
        header(b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,4]}}'),
        "a whole safetensors file",
    ),
    "tensor twice in a header": (
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
        ),
        "a whole safetensors file",
    ),
    "sizes for a petabyte": (change_json(hidden_size=2**20, num_attention_heads=1024), r"shape \("),
    "sizes beyond all reason": (change_json(vocab_size=10**18), "vocab_size"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name: str, model: Transformer, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    save_model(model, tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path, device="cpu")


@settings(max_examples=25)
@given(position=st.integers(0, 3000), byte=st.integers(0, 255))
def test_any_flipped_header_byte_loads_or_is_named(model: Transformer, position: int, byte: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        file = Path(folder) / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[position] = byte
        file.write_bytes(content)
        with contextlib.suppress(CheckpointError):  # nothing else may come out
            loaded = load_model(Path(folder), device="cpu")
            assert all(weight.isfinite().all() for weight in loaded.parameters())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "absent", device="cpu")


def test_a_folder_with_dynamic_scaling_is_refused_by_name(model: Transformer, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    path.write_text(json.dumps(values | {"rope_parameters": scaling, "rope_scaling": None}))
    with pytest.raises(
        CheckpointError, match=r"config\.json: expected rope_type default, .* got rope_type 'dyn"
    ):
        load_model(tmp_path, device="cpu")


def test_models_of_several_labels_are_no_reward_models(tiny: ModelConfig, tmp_path: Path) -> None:
    save_score_model(ScoreModel(Transformer(tiny)), tmp_path)
    change_json(id2label={"0": "a", "1": "b"})(tmp_path)
    with pytest.raises(CheckpointError, match="2 labels"):
        load_score_model(tmp_path, device="cpu")


MEASURE = """
import sys
from pathlib import Path
from puna.model.checkpoint import load_model

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

load_model(Path(sys.argv[1]), device="cpu")  # what torch loads and allocates on first use
before = peak_bytes()
model = load_model(Path(sys.argv[2]), device="cpu")
print(peak_bytes() - before, sum(weight.nbytes for weight in model.parameters()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_holds_one_copy_of_the_weights(model: Transformer, tmp_path: Path) -> None:
    """Resident memory, file pages included: one shard of many tensors used to stay mapped beside the model."""
    sizes = {"dim": 512, "n_layers": 8, "n_heads": 8, "n_kv_heads": 8, "hidden_dim": 1376, "vocab_size": 2000}
    save_model(model, tmp_path / "small")
    save_model(Transformer(ModelConfig(**sizes)), tmp_path / "large")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    grown, weights = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert weights > 100e6
    assert grown < 1.15 * weights


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_weights_are_readable_to_whom_the_umask_says(tmp_path: Path, umask: int) -> None:
    """safetensors writes for the owner only; every file of a folder must have the same mode, written once or again."""
    model = Transformer(
        ModelConfig(
            vocab_size=32, dim=16, n_layers=1, n_heads=2, n_kv_heads=2, hidden_dim=24, max_seq_len=16
        ),
        seed=0,
    )
    before = os.umask(umask)
    try:
        for _ in range(2):
            save_model(model, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}, modes
