"""Decoding speed by batch size, until the key-value cache no longer fits: Figure 24 (App. A.2.1) on one device.

Only the attention's shape matters here, so a model with random weights gives the same figure as a trained one.
"""

import time
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.seeding import rng
from puna.core.stage import Metrics, stage
from puna.inference.engine import Engine
from puna.inference.request import Request
from puna.inference.sampling import SamplingConfig
from puna.model.accounting import kv_cache_bytes, weight_bytes
from puna.model.checkpoint import load_model
from puna.model.transformer import Transformer

__all__ = ["DecodingConfig", "measure_decoding"]


class DecodingConfig(Settings):
    """What is decoded; the paper has contexts of 256 and 2,048 tokens and 128 new ones on eight GPUs."""

    prompt_tokens: tuple[int, ...] = (256, 2048)
    """Lengths of the prompts, one curve each (Figure 24)."""
    new_tokens: int = Field(default=128, ge=2)
    """Tokens decoded for each sequence (Figure 24)."""
    max_batch_size: int = Field(default=1024, ge=1)
    """Batches double from 1 up to this."""
    cache_bytes: int = Field(default=2**31, ge=1)
    """Memory that keys and values may take; larger batches count as out of memory. Our choice."""
    dtype: str = Field(default="bfloat16", pattern="^(float32|bfloat16)$")
    """Of weights and cache."""


class _NoEnd:
    """Stands for a tokenizer without an end: every sequence has its full length."""

    stop_ids = (-1,)

    def decode(self, ids: object) -> str:
        return ""


@stage("decoding")
def measure_decoding(config: DecodingConfig, context: StageContext, *, model: Path) -> Metrics:
    """Time decoding for every prompt length and batch size.

    Returns:
        `curves` (prompt length -> rows of batch_size, tokens_per_second, milliseconds_per_token, cache_bytes; a row of
        a batch that does not fit has no times) and `weight_bytes`.
    """
    dtype: torch.dtype = getattr(torch, config.dtype)
    loaded = load_model(model, dtype=dtype, device=context.device).eval()
    return {
        "curves": {str(n): _curve(loaded, config, n, context) for n in config.prompt_tokens},
        "weight_bytes": weight_bytes(loaded.config, bytes_per_number=dtype.itemsize),
    }


def _curve(
    model: Transformer, config: DecodingConfig, n_prompt: int, context: StageContext
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    batch_size, width = 1, getattr(torch, config.dtype).itemsize
    while batch_size <= config.max_batch_size:
        n_bytes = kv_cache_bytes(
            model.config,
            batch_size=batch_size,
            seq_len=n_prompt + config.new_tokens,
            bytes_per_number=width,
        )
        row: dict[str, Any] = {"batch_size": batch_size, "cache_bytes": n_bytes}
        if n_bytes > config.cache_bytes:
            return [*rows, row | {"tokens_per_second": None, "milliseconds_per_token": None}]
        context.reporter.log(f"decoding {batch_size} x {n_prompt} + {config.new_tokens} tokens")
        seconds = _seconds_per_step(model, n_prompt, config.new_tokens, batch_size, context.seed)
        rows.append(
            row | {"tokens_per_second": batch_size / seconds, "milliseconds_per_token": 1000 * seconds}
        )
        batch_size *= 2
    return rows


def _seconds_per_step(model: Transformer, n_prompt: int, n_new: int, batch_size: int, seed: int) -> float:
    """Mean seconds of a decoding step in which every sequence gets one token; prompts are read before."""
    engine = Engine(model, _NoEnd(), max_batch_size=batch_size, max_step_tokens=batch_size * n_prompt)
    draw = rng(seed, "decoding", n_prompt, batch_size)
    sampling = SamplingConfig(temperature=0, max_new_tokens=n_new)
    for _ in range(batch_size):
        prompt = [draw.randrange(3, model.config.vocab_size) for _ in range(n_prompt)]
        engine.submit(Request(prompt=prompt, sampling=sampling, seed=0))
    engine.step()
    n_before, started = engine.n_computed_tokens, time.perf_counter()
    while engine.n_live:
        engine.step()
    _wait(model.tok_embeddings.weight.device)
    seconds = time.perf_counter() - started
    return seconds * batch_size / (engine.n_computed_tokens - n_before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
