"""Log-probabilities with a bounded view, and perplexity by position: what a longer context is worth (App. A.2.1)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from puna.inference.logprobs import MAX_CHUNK_LOGITS, gather_logprobs
from puna.model.transformer import Transformer

__all__ = ["perplexity_by_position", "windowed_logprobs"]

STRIDES_PER_CONTEXT = 4
"""Beyond its context a model reads on in steps of a quarter of it, so it always sees at least three quarters."""


def windowed_logprobs(
    model: Transformer, rows: Int64[Tensor, "batch seq"], *, context: int
) -> Float[Tensor, "batch seq-1"]:
    """log p of every token given at most `context` tokens before it, in nats.

    A row that fits is read once; the rest of a longer one is read in overlapping windows, each of which counts only
    for the tokens that no earlier window reached.
    """
    rows = rows.to(model.tok_embeddings.weight.device)
    n_tokens = rows.shape[1]
    if n_tokens - 1 <= context:
        return _logprobs(model, rows)
    stride = max(1, context // STRIDES_PER_CONTEXT)
    pieces = [_logprobs(model, rows[:, : context + 1])]
    n_scored = context
    while n_scored < n_tokens - 1:
        n_new = min(stride, n_tokens - 1 - n_scored)
        end = n_scored + n_new + 1
        pieces.append(_logprobs(model, rows[:, end - context - 1 : end])[:, -n_new:])
        n_scored += n_new
    return torch.cat(pieces, dim=1)


def _logprobs(model: Transformer, rows: Tensor) -> Tensor:
    """Of every token but the first; the last is not read, so a row may be one longer than the context."""
    hidden = model.hidden(rows[:, :-1]).flatten(0, 1)
    size = max(1, MAX_CHUNK_LOGITS // model.config.vocab_size)
    pieces = zip(hidden.split(size), rows[:, 1:].flatten().split(size), strict=True)
    logprobs = [gather_logprobs(model.logits(states), targets) for states, targets in pieces]
    return torch.cat(logprobs).view(rows.shape[0], -1)


def perplexity_by_position(
    logprobs: Float[Tensor, "batch targets"], edges: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Perplexity of the tokens at places 1 up to the first edge, from there to the next, and so on to the end.

    Returns:
        `"a-b"` for places a to b - 1: perplexity, loss in nats and n tokens.
    """
    n_targets = logprobs.shape[1]
    bounds = [1, *(edge for edge in edges if edge <= n_targets), n_targets + 1]
    groups = {}
    for low, high in pairwise(bounds):
        nats = -logprobs[:, low - 1 : high - 1].double().mean().item()
        n = logprobs.shape[0] * (high - low)
        groups[f"{low}-{high}"] = {"perplexity": math.exp(nats), "loss": nats, "n": n}
    return groups
