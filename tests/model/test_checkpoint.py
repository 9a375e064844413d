"""Folders against transformers, both ways, and against damage."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from puna.core.errors import CheckpointError
from puna.model.checkpoint import load_model, load_score_model, save_model, save_score_model
from puna.model.config import ModelConfig
from puna.model.heads import ScoreModel
from puna.model.transformer import Transformer


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    n_kv_heads, n_repeats = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_heads = n_kv_heads * n_repeats
    return ModelConfig(
        dim=n_heads * 2 * draw(st.integers(1, 5)),
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        vocab_size=draw(st.integers(5, 60)),
        hidden_dim=draw(st.integers(3, 40)),
        norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        rope_theta=draw(st.sampled_from([100.0, 10_000.0, 1e6])),
        max_seq_len=draw(st.integers(8, 64)),
        tie_embeddings=draw(st.booleans()),
    )


def sharpened(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that a wrong layout, epsilon or theta moves the logits."""
    for weight in model.requires_grad_(False).parameters():
        weight *= 1.2 if weight.ndim == 2 else 1.3
    return model


def text(config: ModelConfig) -> torch.Tensor:
    shape = (2, min(config.max_seq_len, 24))
    return torch.randint(3, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=12)
@given(configs())
def test_our_folder_gives_transformers_the_same_logits(config: ModelConfig) -> None:
    model = sharpened(Transformer(config))
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        theirs = AutoModelForCausalLM.from_pretrained(folder)
        reloaded = load_model(Path(folder))
    with torch.no_grad():
        torch.testing.assert_close(theirs(text(config)).logits, model(text(config)), atol=1e-4, rtol=0)
    assert reloaded.config == config
    assert torch.equal(reloaded(text(config)), model(text(config)))


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
                vocab_size=config.vocab_size,
                rms_norm_eps=config.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                max_position_embeddings=config.max_seq_len,
                tie_word_embeddings=config.tie_embeddings,
                initializer_range=0.02,
            )
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        model = load_model(Path(folder))
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
        reloaded = load_score_model(Path(back))
    assert theirs.config.num_labels == 1
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(text(config)).logits[:, 0], model(text(config))[:, -1], atol=1e-4, rtol=0
        )
    assert torch.equal(reloaded(text(config)), model(text(config)))


def test_shards_load_here_and_in_transformers(model: Transformer, tiny: ModelConfig, tmp_path: Path) -> None:
    save_model(model, tmp_path, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(theirs(text(tiny)).logits, model(text(tiny)), atol=1e-4, rtol=0)
    assert torch.equal(ours(text(tiny)), model(text(tiny)))


def test_stored_dtype_and_ids(model: Transformer, tmp_path: Path) -> None:
    save_model(model, tmp_path, dtype=torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in load_file(tmp_path / "model.safetensors").values())
    assert load_model(tmp_path).output.weight.dtype == torch.float32
    assert load_model(tmp_path, dtype=torch.bfloat16).output.weight.dtype == torch.bfloat16
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["torch_dtype"]) == (1, 2, "bfloat16")
    assert json.loads((tmp_path / "generation_config.json").read_text())["max_length"] == 64


def test_loaded_weights_do_not_hang_on_the_file(
    model: Transformer, tiny: ModelConfig, tmp_path: Path
) -> None:
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
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
    "other rope": (
        change_json(rope_parameters={"rope_type": "llama3", "rope_theta": 1.0}),
        "rope_type default",
    ),
    "other head width": (change_json(head_dim=5), "head_dim 8"),
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
    "shard missing": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}'),
        "no such file",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name: str, model: Transformer, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    save_model(model, tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


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
            load_model(Path(folder))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        load_model(tmp_path / "absent")


def test_models_of_several_labels_are_no_reward_models(tiny: ModelConfig, tmp_path: Path) -> None:
    save_score_model(ScoreModel(Transformer(tiny)), tmp_path)
    change_json(id2label={"0": "a", "1": "b"})(tmp_path)
    with pytest.raises(CheckpointError, match="2 labels"):
        load_score_model(tmp_path)
