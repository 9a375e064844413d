"""Parameters, floating-point operations and bytes of a model, from its configuration alone."""

from puna.model.config import ModelConfig

__all__ = ["kv_cache_bytes", "n_parameters", "training_flops_per_token", "weight_bytes"]


def n_parameters(config: ModelConfig) -> int:
    """Trainable numbers of the language model; a tied output matrix counts once, rotary positions have none."""
    attention = 2 * config.dim * (config.q_dim + config.kv_dim)
    feed_forward = 3 * config.dim * config.hidden_dim
    norms = 2 * config.dim
    n_embeddings = 1 if config.tie_embeddings else 2
    blocks = config.n_layers * (attention + feed_forward + norms)
    return blocks + config.dim + n_embeddings * config.vocab_size * config.dim


def training_flops_per_token(config: ModelConfig, *, seq_len: int) -> int:
    """Forward and backward operations per trained token.

    Source: PaLM (Chowdhery et al. 2022) App. B: 6 N + 12 L Q T, with N the parameters that multiply (the
    embedding is a look-up), Q the width of all query heads and attention over T keys; causality, which halves
    the last term, is not credited.
    """
    n_multiplied = n_parameters(config)
    if not config.tie_embeddings:
        n_multiplied -= config.vocab_size * config.dim
    return 6 * n_multiplied + 12 * config.n_layers * config.q_dim * seq_len


def kv_cache_bytes(config: ModelConfig, *, batch_size: int, seq_len: int, bytes_per_number: int = 2) -> int:
    """Size of the cached keys and values (App. A.2.1); the default is bfloat16's width."""
    per_token = 2 * config.n_layers * config.kv_dim * bytes_per_number
    return batch_size * seq_len * per_token


def weight_bytes(config: ModelConfig, *, bytes_per_number: int = 2) -> int:
    """Size of the weights in memory; the default is bfloat16's width."""
    return n_parameters(config) * bytes_per_number
