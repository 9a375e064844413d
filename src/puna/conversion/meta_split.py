"""How Meta's checkpoints are cut into shards: model-parallel splits and replicas.

Source: the parallel layers of Meta's model.py.
"""

from puna.conversion.meta_params import LLAMA3_SCALING
from puna.core.errors import ConfigError
from puna.model.config import ModelConfig

__all__ = ["SHARD_COUNTS", "check_split", "split_dim"]

SHARD_COUNTS = (1, 2, 4, 8)
"""Model-parallel sizes of the released 7B, 13B, 34B and 70B."""

_SPLITS = {
    "tok_embeddings": 1, "output": 0, "wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0,
}  # fmt: skip


def split_dim(name: str) -> int | None:
    """Dimension along which a tensor, by Meta's name, is cut; None when every shard holds all of it."""
    return _SPLITS.get(name.split(".")[-2])


def check_split(config: ModelConfig, n_shards: int) -> None:
    """Whether Meta's code could load the model on that many devices.

    Raises:
        ConfigError: it could not; names the size that does not divide, or the setting that its code lacks.
    """
    is_foreign = config.rope_scaling not in (None, LLAMA3_SCALING)
    if is_foreign or config.custom_head_dim is not None:
        got = "another rope_scaling" if is_foreign else f"heads of {config.head_dim}"
        raise ConfigError(
            where="--to meta",
            expected="rotary positions that are plain or Llama 3.1's, and heads of dim / n_heads, as in Meta's code",
            got=got,
            fix="Write another format.",
        )
    sizes = {
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "hidden_dim": config.hidden_dim,
        "vocab_size": config.vocab_size,
        "dim": config.dim,
    }
    uneven = [f"{name} {size}" for name, size in sizes.items() if size % n_shards]
    if n_shards not in SHARD_COUNTS or uneven:
        fits = [n for n in SHARD_COUNTS if not any(size % n for size in sizes.values())]
        raise ConfigError(
            where="--shards",
            expected=f"one of {', '.join(map(str, fits))} for this model",
            got=f"{n_shards}" + (f", which does not divide {uneven[0]}" if uneven else ""),
            fix="Choose a number of shards that divides the heads, widths and vocabulary.",
        )
