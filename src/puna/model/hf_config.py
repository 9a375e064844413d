"""config.json of a Hugging Face Llama folder to and from ModelConfig; what Llama 2 does not have is refused."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig

__all__ = ["GENERATION_CONFIG", "broken", "config_from_hf", "config_to_hf", "read_config", "read_json"]

GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
}
"""Meta's sampling defaults; the ids are fixed by the tokenizer, which has no padding token: 0 is its unk."""

_HF_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "hidden_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "max_seq_len": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
}

_FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Keys with one value in every Llama 2; only model_type must be present."""


def broken(where: Path, expected: str, got: str) -> CheckpointError:
    """The error of a damaged or foreign model folder."""
    fix = "Restore the folder from its source or choose another model."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        CheckpointError: the file is missing or is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise broken(path, "a model folder's file", error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise broken(path, "valid JSON", str(error)) from None
    if not isinstance(value, dict):
        raise broken(path, "a JSON object", type(value).__name__)
    return value


def config_to_hf(config: ModelConfig, *, architecture: str, dtype: torch.dtype) -> dict[str, Any]:
    """The content of config.json; rotary settings in both the old form and that of transformers 5."""
    is_scorer = architecture == "LlamaForSequenceClassification"
    return {
        "architectures": [architecture],
        **_FIXED,
        **{_HF_KEYS[name]: value for name, value in config.model_dump().items()},
        "head_dim": config.head_dim,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_scaling": None,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "use_cache": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **({"pad_token_id": 0, "id2label": {"0": "score"}, "label2id": {"score": 0}} if is_scorer else {}),
    }


def read_config(folder: Path, *, architecture: str) -> ModelConfig:
    """Read config.json of a model of that architecture.

    Raises:
        CheckpointError: the file is missing, broken, lacks a key, or describes another architecture.
    """
    path = folder / "config.json"
    values = read_json(path)
    architectures = values.get("architectures") or [architecture]
    if architectures != [architecture]:
        raise broken(path, f"architectures [{architecture!r}]", repr(architectures))
    n_labels = len(values.get("id2label") or "1")
    if architecture == "LlamaForSequenceClassification" and n_labels != 1:
        raise broken(path, "one label, a score", f"{n_labels} labels")
    return config_from_hf(values, where=path)


def config_from_hf(values: dict[str, Any], *, where: Path) -> ModelConfig:
    """Our configuration from the keys of config.json, of transformers 4 or 5.

    Raises:
        CheckpointError: names the key that is missing or not Llama 2's.
    """
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise broken(where, "rope_type default, as in Llama 2", repr(rope))
    for key, value in _FIXED.items():
        if values.get(key, None if key == "model_type" else value) != value:
            raise broken(where, f"{key} {value!r}", repr(values.get(key)))
    optional = {
        "num_key_value_heads": values.get("num_attention_heads"),
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "tie_word_embeddings": False,
    }
    found = {key: value for key, value in (optional | values).items() if value is not None}
    missing = [key for key in _HF_KEYS.values() if key not in found]
    if missing:
        raise broken(where, f"the key {missing[0]}", "a config.json without it")
    try:
        config = ModelConfig.model_validate({name: found[key] for name, key in _HF_KEYS.items()}, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = _HF_KEYS.get(str(first["loc"][0]), "sizes") if first["loc"] else "sizes"
        raise broken(where, "the sizes of a Llama", f"{key}: {first['msg']}") from None
    if values.get("head_dim") not in (None, config.head_dim):
        raise broken(where, f"head_dim {config.head_dim} = hidden_size / heads", repr(values["head_dim"]))
    return config
