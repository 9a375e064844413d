"""config.json of a Hugging Face Llama folder to and from ModelConfig; what no Llama has is refused by name."""

import difflib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig
from puna.model.hf_rope import rope_from_hf, rope_to_hf

__all__ = [
    "GENERATION_CONFIG",
    "broken",
    "config_from_hf",
    "config_to_hf",
    "read_config",
    "read_json",
    "saved_dtype",
]

GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
}
"""Meta's sampling defaults; the ids are fixed by the tokenizer, which has no padding token: 0 is its unk."""

_SIZES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "hidden_dim": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "custom_head_dim": "head_dim",
}
"""Our whole numbers and Hugging Face's keys."""

_HF_KEYS = _SIZES | {"norm_eps": "rms_norm_eps", "tie_embeddings": "tie_word_embeddings"}

_DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
"""What transformers takes where a file lacks the key. The sizes it would invent too are required here."""

_FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Keys written with one value; only model_type must be present."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    **dict.fromkeys(("attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_qkv_bias", "bias"), (False,)),
    **dict.fromkeys(("sliding_window", "use_sliding_window", "attention_chunk_size"), (False,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "clip_qkv", "alibi"), (False,)),
    **dict.fromkeys(("qk_norm", "use_qk_norm", "qk_layernorm", "use_parallel_residual"), (False,)),
    **dict.fromkeys(("quantization_config", "compression_config"), ({},)),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), (0, 1)),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct", "logit_scale", "logits_scaling"), (1.0,)),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier"), (1.0,)),
    **dict.fromkeys(("attention_multiplier", "query_pre_attn_scalar"), ()),
    **dict.fromkeys(("no_rope_layers", "no_rope_layer_interval"), ([], 0)),
    "rope_interleaved": (False,),
}
"""Keys with which related families leave the Llama architecture, and the values (or null) that change nothing."""


def broken(where: Path, expected: str, got: str) -> CheckpointError:
    """The error of a damaged or foreign model folder."""
    fix = "Restore the folder from its source or choose another model."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error of a model folder's file that cannot be opened: what is there instead of the folder, and what to do."""
    folder = path.parent
    if isinstance(error, NotADirectoryError) and folder.with_name(path.name).is_file():
        got, fix = "a file", f"Name the folder it is in: {folder.parent}"
    elif isinstance(error, NotADirectoryError):
        got, fix = "a file", f"If it is a checkpoint, convert it: puna convert {folder} FOLDER --to hf"
    elif isinstance(error, FileNotFoundError) and not folder.is_dir():
        beside = [file.parent.name for file in folder.parent.glob(f"*/{path.name}")]
        near = difflib.get_close_matches(folder.name, beside, n=1)
        got = "no such folder"
        fix = f"Did you mean {folder.with_name(near[0])}?" if near else "Check the path."
    else:
        return broken(path, "a model folder's file", error.strerror or str(error))
    return CheckpointError(where=str(folder), expected="a model folder", got=got, fix=fix)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        CheckpointError: the file is missing or is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise broken(path, "valid JSON", str(error)) from None
    if not isinstance(value, dict):
        raise broken(path, "a JSON object", type(value).__name__)
    return value


def config_to_hf(
    config: ModelConfig,
    *,
    architecture: str,
    dtype: torch.dtype,
    token_ids: Mapping[str, Any] = GENERATION_CONFIG,
) -> dict[str, Any]:
    """The content of config.json; rotary settings in both the old form and that of transformers 5.

    Args:
        token_ids: bos_token_id, eos_token_id and pad_token_id; other keys are not looked at.
    """
    is_scorer = architecture == "LlamaForSequenceClassification"
    sizes = {key: getattr(config, name) for name, key in _HF_KEYS.items()}
    pad_id = token_ids.get("pad_token_id")
    return {
        "architectures": [architecture],
        **_FIXED,
        **sizes,
        "head_dim": config.head_dim,
        **rope_to_hf(config),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "use_cache": True,
        "bos_token_id": token_ids.get("bos_token_id"),
        "eos_token_id": token_ids.get("eos_token_id"),
        "torch_dtype": str(dtype).removeprefix("torch."),
        **({"pad_token_id": pad_id or 0, "id2label": {"0": "score"}} if is_scorer else {}),
        **({"label2id": {"score": 0}} if is_scorer else {}),
    }


def saved_dtype(folder: Path) -> torch.dtype:
    """The number format that config.json says its weights have; float32 where it does not say."""
    values = read_json(folder / "config.json")
    name = values.get("dtype", values.get("torch_dtype"))
    found = getattr(torch, name, None) if isinstance(name, str) else None
    return found if isinstance(found, torch.dtype) else torch.float32


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
        CheckpointError: names the key that is missing, out of range or not a Llama's.
    """
    _check_family(values, where)
    found = _DEFAULTS | {key: value for key, value in values.items() if value is not None}
    found.setdefault("num_key_value_heads", found.get("num_attention_heads"))
    found = {key: _whole(value) if key in _SIZES.values() else value for key, value in found.items()}
    missing = [key for key in _HF_KEYS.values() if key not in found and key != "head_dim"]
    if missing:
        raise broken(where, f"the key {missing[0]}", "a config.json without it")
    fields = {name: found[key] for name, key in _HF_KEYS.items() if key in found}
    n_positions = fields["max_seq_len"]
    if type(n_positions) is not int or n_positions <= 0:
        raise broken(where, "the sizes of a Llama", f"max_position_embeddings: {n_positions!r}")
    theta, scaling = rope_from_hf(values, n_positions=n_positions, where=where)
    if fields.get("custom_head_dim") == _usual_head_dim(fields):
        fields.pop("custom_head_dim", None)
    try:
        return ModelConfig.model_validate(
            fields | {"rope_theta": theta, "rope_scaling": scaling}, strict=True
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "sizes"
        raise broken(where, "the sizes of a Llama", f"{_HF_KEYS.get(name, name)}: {first['msg']}") from None


def _check_family(values: dict[str, Any], where: Path) -> None:
    """Refuse, by its name, what this architecture would silently compute otherwise."""
    if values.get("model_type") != "llama":
        raise broken(where, "model_type 'llama'", f"model_type {values.get('model_type')!r}")
    for key, neutral in _NEUTRAL.items():
        value = values.get(key)
        if value is not None and value not in neutral:
            usual = repr(neutral[0]) if neutral else "absent"
            raise broken(where, f"{key} {usual}, as in every Llama", f"{key} {reprlib.repr(value)}")
    kinds = values.get("layer_types") or []
    other = [kind for kind in kinds if kind != "full_attention"] if isinstance(kinds, list) else [kinds]
    if other:
        raise broken(where, "layer_types full_attention, as in every Llama", f"layer_types {other[0]!r}")


def _whole(value: Any) -> Any:
    """4096.0 as 4096: some writers make every number a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _usual_head_dim(fields: Mapping[str, Any]) -> int | None:
    """hidden_size / heads, which config.json may repeat as head_dim."""
    dim, n_heads = fields["dim"], fields["n_heads"]
    return dim // n_heads if type(dim) is int and type(n_heads) is int and n_heads > 0 else None
