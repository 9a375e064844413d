"""params.json of Meta's checkpoints to and from ModelConfig.

Meta's file leaves out what its code knows: a vocabulary of -1 is the tokenizer's, and the feed-forward width follows
from two roundings. Widths are taken from the tensors here and checked against the file. What Meta's ModelArgs has no
name for (context, tied matrices) goes to a small file of ours beside it, which Meta's loader does not open.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from puna.model.config import ModelConfig
from puna.model.hf_config import broken, read_json
from puna.model.rope_scaling import Llama3Scaling

__all__ = [
    "EXTRA_FILE",
    "LLAMA3_SCALING",
    "PARAMS_FILE",
    "feed_forward_dim",
    "params_from_config",
    "read_params",
    "write_params",
]

PARAMS_FILE = "params.json"
EXTRA_FILE = "puna.json"
DEFAULT_NORM_EPS = 1e-5
"""ModelArgs.norm_eps in Meta's model.py."""
DEFAULT_MULTIPLE_OF = 256
"""ModelArgs.multiple_of in Meta's model.py."""
LLAMA2_THETA = 10_000.0
LLAMA3_SCALING = Llama3Scaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192
)
"""What use_scaled_rope stands for: the constants of apply_scaling in Meta's Llama 3.1 code."""
_KNOWN = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
    "rope_theta", "use_scaled_rope", "max_seq_len", "max_batch_size",
}  # fmt: skip


def feed_forward_dim(dim: int, *, multiple_of: int, multiplier: float | None) -> int:
    """Meta's rule for the inner width: 2/3 of 4 dim, times the multiplier, rounded up to a multiple.

    Source: FeedForward in Meta's model.py.
    """
    hidden = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def params_from_config(config: ModelConfig) -> dict[str, Any]:
    """The content of params.json; rotary keys, which Llama 2's ModelArgs does not know, only where they differ."""
    multiple_of, multiplier = _roundings(config)
    return {
        "dim": config.dim,
        **({"ffn_dim_multiplier": multiplier} if multiplier is not None else {}),
        "multiple_of": multiple_of,
        "n_heads": config.n_heads,
        **({"n_kv_heads": config.n_kv_heads} if config.n_kv_heads != config.n_heads else {}),
        "n_layers": config.n_layers,
        "norm_eps": config.norm_eps,
        **({"rope_theta": config.rope_theta} if config.rope_theta != LLAMA2_THETA else {}),
        **({"use_scaled_rope": True} if config.rope_scaling == LLAMA3_SCALING else {}),
        "vocab_size": -1,
    }


def _roundings(config: ModelConfig) -> tuple[int, float | None]:
    """A multiple_of and a multiplier that give the config's hidden_dim; Meta's own pairs first."""
    base = int(2 * (4 * config.dim) / 3)
    exact = (config.hidden_dim + 0.5) / base  # in the middle, so that no rounding error changes the integer
    pairs: list[tuple[int, float | None]] = [
        (256, None),
        (4096, 1.3),
        *((2**p, None) for p in range(13)),
        (1, exact),
    ]
    for multiple_of, multiplier in pairs:
        if feed_forward_dim(config.dim, multiple_of=multiple_of, multiplier=multiplier) == config.hidden_dim:
            return multiple_of, multiplier
    raise AssertionError("the last pair always fits")


def write_params(config: ModelConfig, folder: Path) -> None:
    """Write params.json and our file beside it."""
    extra = {"max_seq_len": config.max_seq_len, "tie_embeddings": config.tie_embeddings}
    for name, value in ((PARAMS_FILE, params_from_config(config)), (EXTRA_FILE, extra)):
        (folder / name).write_text(json.dumps(value) + "\n", encoding="utf-8")


def read_params(folder: Path, *, vocab_size: int, hidden_dim: int) -> ModelConfig:
    """The configuration of a Meta folder.

    Args:
        vocab_size: Rows of the output matrix, all shards together.
        hidden_dim: Rows of w1, all shards together.
    Raises:
        CheckpointError: a key is missing, unknown, or at odds with the tensors.
    """
    path = folder / PARAMS_FILE
    values = {key: value for key, value in read_json(path).items() if value is not None}
    missing = [key for key in ("dim", "n_layers", "n_heads") if key not in values]
    if missing:
        raise broken(path, f"the key {missing[0]}", "a file without it")
    unknown = sorted(values.keys() - _KNOWN)
    if unknown:
        raise broken(path, f"the keys of Llama 2: {', '.join(sorted(_KNOWN))}", unknown[0][:80])
    extra = read_json(folder / EXTRA_FILE) if (folder / EXTRA_FILE).is_file() else {}
    if not isinstance(values.get("use_scaled_rope", False), bool):
        raise broken(path, "use_scaled_rope as true or false", f"{values['use_scaled_rope']!r:.40}")
    config = _config(values, extra, vocab_size, hidden_dim, path)
    if values.get("vocab_size", -1) not in (-1, vocab_size):
        raise broken(path, f"vocab_size -1 or {vocab_size}, the tensors'", f"{values['vocab_size']!r:.80}")
    _check_roundings(values, config, path)
    return config


def _config(
    values: Mapping[str, Any], extra: Mapping[str, Any], vocab_size: int, hidden_dim: int, path: Path
) -> ModelConfig:
    found = {
        "dim": values["dim"],
        "n_layers": values["n_layers"],
        "n_heads": values["n_heads"],
        "n_kv_heads": values.get("n_kv_heads", values["n_heads"]),
        "norm_eps": values.get("norm_eps", DEFAULT_NORM_EPS),
        "rope_theta": values.get("rope_theta", LLAMA2_THETA),
        "rope_scaling": LLAMA3_SCALING if values.get("use_scaled_rope") else None,
        "vocab_size": vocab_size,
        "hidden_dim": hidden_dim,
        **{key: extra[key] for key in ("max_seq_len", "tie_embeddings") if key in extra},
    }
    try:
        return ModelConfig.model_validate(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise broken(
            path, "the sizes of a Llama", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def _check_roundings(values: Mapping[str, Any], config: ModelConfig, path: Path) -> None:
    """When the file says how the feed-forward width is rounded, the tensors must agree."""
    multiple_of = values.get("multiple_of", DEFAULT_MULTIPLE_OF)
    multiplier = values.get("ffn_dim_multiplier")
    is_known = isinstance(multiple_of, int) and 0 < multiple_of < 2**31
    if not is_known or not isinstance(multiplier, int | float | None) or not 0 < (multiplier or 1) < 1e6:
        raise broken(
            path, "multiple_of and ffn_dim_multiplier as numbers", f"{multiple_of!r:.40}, {multiplier!r:.40}"
        )
    expected = feed_forward_dim(config.dim, multiple_of=multiple_of, multiplier=multiplier)
    if "multiple_of" in values and expected != config.hidden_dim:
        raise broken(path, f"a feed-forward width of {expected}", f"tensors of {config.hidden_dim}")
