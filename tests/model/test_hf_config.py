import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from llama_configs import configs
from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig
from puna.model.hf_config import config_from_hf, config_to_hf, read_json
from puna.model.rope_scaling import LinearScaling, Llama3Scaling, YarnScaling

WHERE = Path("config.json")
PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 40,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def read(**changes: Any) -> ModelConfig:
    return config_from_hf(PLAIN | changes, where=WHERE)


@given(configs())
def test_what_is_written_is_read_back(config: ModelConfig) -> None:
    written = config_to_hf(config, architecture="LlamaForCausalLM", dtype=torch.float32)
    for dropped in ({"rope_scaling"}, {"rope_parameters"}, set[str]()):
        values = {key: value for key, value in written.items() if key not in dropped}
        assert config_from_hf(json.loads(json.dumps(values)), where=WHERE) == config


def test_a_bare_file_means_what_transformers_makes_of_it() -> None:
    config = read()
    assert (config.n_kv_heads, config.rope_theta, config.max_seq_len) == (4, 10_000.0, 2048)
    assert (config.norm_eps, config.tie_embeddings, config.custom_head_dim) == (1e-6, False, None)


def test_numbers_may_be_written_as_others_write_them() -> None:
    config = read(rope_theta=500_000, hidden_size=32.0, rms_norm_eps=1, head_dim=8, num_key_value_heads=None)
    assert (config.rope_theta, config.dim, config.norm_eps, config.custom_head_dim) == (5e5, 32, 1, None)
    assert read(head_dim=16).head_dim == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4}}, LinearScaling(factor=4)),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, LinearScaling(factor=4)),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, LinearScaling(factor=4)),
        (
            {"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 64, **LLAMA3}},
            Llama3Scaling(original_max_seq_len=64, **LLAMA3),
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", **LLAMA3}, "max_position_embeddings": 128},
            Llama3Scaling(original_max_seq_len=128, **LLAMA3),
        ),
        (
            {
                "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 64, "factor": None},
                "max_position_embeddings": 256,
            },
            YarnScaling(original_max_seq_len=64, factor=4.0),
        ),
        (
            {
                "rope_scaling": {"type": "yarn", "factor": 2.0, "finetuned": True},
                "max_position_embeddings": 9,
            },
            YarnScaling(original_max_seq_len=9, factor=2.0),
        ),
        ({"rope_scaling": {"rope_type": "default"}}, None),
        ({"rope_scaling": {}, "rope_parameters": None}, None),
    ],
)
def test_every_form_of_scaling_is_read(changes: dict[str, Any], expected: object) -> None:
    assert read(**changes).rope_scaling == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_dynamic_scaling_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as refused:
        read(**changes)
    error = refused.value
    assert error.where == "config.json"
    assert error.expected == "rope_type default, linear, llama3, yarn"
    assert error.got == "rope_type 'dynamic'"
    assert "remove rope_scaling" in error.fix


def test_theta_of_the_scaling_comes_first() -> None:
    assert read(rope_parameters={"rope_type": "default", "rope_theta": 7}, rope_theta=8).rope_theta == 7
    assert read(rope_scaling={"type": "linear", "factor": 2}, rope_theta=8).rope_theta == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'llama', got model_type 'mistral'"),
        ({"model_type": None}, "got model_type None"),
        ({"attention_bias": True}, "attention_bias False, as in every Llama, got attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"sliding_window": 4096}, "sliding_window 4096"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "whole heads"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
        ({"num_local_experts": 8}, "num_local_experts 8"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier 12.0"),
        ({"attention_multiplier": 0.01}, "attention_multiplier absent"),
        ({"qk_norm": True}, "qk_norm"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "'ntk'. Fixed NTK.*larger rope_theta"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "linear", "alpha": 1000.0, "factor": 1.0}}, "linear RoPE.*alpha"),
        ({"rope_scaling": {"type": "linear"}}, "factor: Field required"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor: Input should be a valid number"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor: Input should be greater"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": [1]}, "rope_scaling as an object"),
        ({"rope_scaling": {"rope_type": ["x"]}}, "rope_type"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": "1e4"}, "rope_theta"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"max_position_embeddings": "4096"}, "max_position_embeddings"),
        ({"hidden_size": 32.5}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "multiple of n_kv_heads"),
        ({"head_dim": 5}, "heads of even width"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"hidden_size": None}, "the key hidden_size"),
    ],
)
def test_what_is_no_llama_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(**changes)


def test_what_related_files_spell_out_is_no_reason_to_refuse() -> None:
    neutral: dict[str, Any] = {
        "sliding_window": None,
        "attention_bias": False,
        "hidden_act": "silu",
        "rope_interleaved": False,
        "layer_types": ["full_attention"] * 2,
        "quantization_config": None,
        "is_llama_config": True,
    }
    assert read(**neutral) == read()


def test_what_is_no_model_folder_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "config.json").write_text("{}")
    (tmp_path / "sft" / "model.safetensors").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF")
    said = {}
    weights, too_long = tmp_path / "sft" / "model.safetensors", tmp_path / ("x" * 300)
    for folder in (gguf, weights, too_long, tmp_path / "stf", tmp_path / "qqqq", tmp_path / "note"):
        with pytest.raises(CheckpointError) as caught:
            read_json(folder / "config.json")
        said[folder.name] = str(caught.value)
    assert said["x.gguf"].endswith(f"If it is a checkpoint, convert it: puna convert {gguf} FOLDER --to hf")
    assert said["model.safetensors"].endswith(f"got a file. Name the folder it is in: {tmp_path / 'sft'}")
    assert "File name too long" in said["x" * 300], "an error that no check foresaw stays one message"
    assert said["stf"].endswith(f"got no such folder. Did you mean {tmp_path / 'sft'}?")
    assert said["qqqq"].endswith("got no such folder. Check the path.")
    assert said["note"].endswith("got no such folder. Check the path."), (
        "a folder without a model is no advice"
    )
