"""The settings in a GGUF of architecture `llama` to and from ModelConfig; what is no Llama is refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from pydantic import ValidationError

from puna.conversion.gguf_file import GGUFFile, damaged, shape_of
from puna.conversion.gguf_rope import add_rope_scaling, rope_scaling_from_gguf
from puna.model.config import ModelConfig

__all__ = ["ARCHITECTURE", "add_config", "config_from_gguf"]

ARCHITECTURE = "llama"

_SIZES = {
    "dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "hidden_dim": "feed_forward_length",
    "max_seq_len": "context_length",
}
"""Whole numbers that every file has."""

_NOT_LLAMA = (
    "expert_count",
    "attention.sliding_window",
    "attention.scale",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "attn_logit_softcapping",
    "attention.temperature_length",
    "use_parallel_residual",
)
"""Settings that change the computation to one that a Llama does not have."""


def config_from_gguf(file: GGUFFile, *, where: Path) -> ModelConfig:
    """The shape of the model in a GGUF file.

    Raises:
        CheckpointError: it is of another architecture, a part of a split file, or lacks or contradicts a size.
    """
    metadata = file.metadata
    _check_kind(metadata, where)
    values: dict[str, Any] = {field: _size(metadata, key, where) for field, key in _SIZES.items()}
    values["n_kv_heads"] = _size(metadata, "attention.head_count_kv", where, default=values["n_heads"])
    values["norm_eps"] = _number(metadata, "attention.layer_norm_rms_epsilon", where)
    values["rope_theta"] = _number(metadata, "rope.freq_base", where, default=10_000.0)
    values["vocab_size"] = _vocab_size(file, where)
    values["tie_embeddings"] = "output.weight" not in file.tensors
    values["rope_scaling"] = rope_scaling_from_gguf(metadata, where=where)
    width = _size(metadata, "attention.key_length", where, default=0)
    if width and width * values["n_heads"] != values["dim"]:
        values["custom_head_dim"] = width
    try:
        config = ModelConfig.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "sizes"
        raise damaged(where, "the sizes of a Llama", f"{_SIZES.get(field, field)}: {first['msg']}") from None
    for key in ("rope.dimension_count", "attention.value_length"):
        width = _size(metadata, key, where, default=config.head_dim)
        if width != config.head_dim:
            raise damaged(where, f"{ARCHITECTURE}.{key} {config.head_dim}, the width of a head", str(width))
    return config


def add_config(writer: GGUFWriter, config: ModelConfig) -> None:
    """Write the model's settings."""
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    add_rope_scaling(writer, config.rope_scaling)


def _check_kind(metadata: Mapping[str, Any], where: Path) -> None:
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise damaged(where, f"general.architecture {ARCHITECTURE!r}", repr(architecture)[:80])
    if metadata.get("general.type", "model") != "model":
        raise damaged(where, "general.type 'model'", repr(metadata["general.type"])[:80])
    if metadata.get("split.count", 0) not in (0, 1):
        raise damaged(where, "one file: join the parts with llama-gguf-split --merge", "one part of several")
    for key in _NOT_LLAMA:
        value = metadata.get(f"{ARCHITECTURE}.{key}", 0)
        if not isinstance(value, int | float) or value:
            raise damaged(where, f"a Llama, without {ARCHITECTURE}.{key}", repr(value)[:80])


def _size(metadata: Mapping[str, Any], key: str, where: Path, *, default: int | None = None) -> int:
    name = f"{ARCHITECTURE}.{key}"
    value = metadata.get(name, default)
    if value is None:
        raise damaged(where, f"the setting {name}", "a file without it")
    if not isinstance(value, int) or isinstance(value, bool):
        raise damaged(where, f"one whole number in {name}, the same for all layers", repr(value)[:80])
    return value


def _number(metadata: Mapping[str, Any], key: str, where: Path, *, default: float | None = None) -> float:
    """A float32 of the file as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
    name = f"{ARCHITECTURE}.{key}"
    value = metadata.get(name, default)
    if value is None:
        raise damaged(where, f"the setting {name}", "a file without it")
    if not isinstance(value, float) or not np.isfinite(value):
        raise damaged(where, f"a finite number in {name}", repr(value)[:80])
    return float(str(np.float32(value)))


def _vocab_size(file: GGUFFile, where: Path) -> int:
    """Rows of the embedding, when the tokens and llama.vocab_size agree with them."""
    metadata = file.metadata
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise damaged(where, "the tensor token_embd.weight", "a file without it")
    n_rows = shape_of(embedding)[0]
    stated = _size(metadata, "vocab_size", where, default=n_rows)
    tokens = metadata.get("tokenizer.ggml.tokens")
    n_tokens = len(tokens) if isinstance(tokens, list) else n_rows
    if not n_rows == stated == n_tokens:
        raise damaged(
            where,
            f"{n_rows} tokens, the rows of token_embd.weight",
            f"{n_tokens} in tokenizer.ggml.tokens and {ARCHITECTURE}.vocab_size {stated}",
        )
    return n_rows
