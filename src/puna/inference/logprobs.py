"""Log-probabilities of given tokens: the only place that shifts by one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from puna.model.blockwise_attention import ROW_MULTIPLE, round_up
from puna.model.transformer import Transformer

__all__ = ["gather_logprobs", "right_padded_hidden", "token_logprobs"]

MAX_CHUNK_LOGITS = 2**26
"""Logits held at once without gradients: 256 MB in float32, whatever the vocabulary."""


def gather_logprobs(
    logits: Float[Tensor, "*batch vocab"], tokens: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """log softmax(logits)[token] in float32, in nats, without storing the whole log-softmax twice."""
    wide = logits.float()
    return wide.gather(-1, tokens[..., None]).squeeze(-1) - wide.logsumexp(-1)


def right_padded_hidden(
    model: Transformer, tokens: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq dim"]:
    """The states of whole rows, with the engine's bits in float32 on a CPU: its products have full rows too.

    Right padding is harmless: causality keeps it out of the real tokens' states.
    """
    n_tokens = tokens.shape[1]
    filling = round_up(n_tokens, ROW_MULTIPLE) - n_tokens
    if not filling or n_tokens > model.config.max_seq_len:
        return model.hidden(tokens)
    positions = torch.arange(n_tokens + filling, device=tokens.device).clamp(max=n_tokens - 1)[None]
    return model.hidden(F.pad(tokens, (0, filling)), positions=positions)[:, :n_tokens]


def token_logprobs(
    model: Transformer,
    tokens: Int[Tensor, "batch seq"],
    *,
    positions: Int[Tensor, "batch seq"] | None = None,
    document_ids: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq-1"]:
    """log p(tokens[t + 1] | tokens[: t + 1]) for every t, in nats, float32; gradients flow if they are on.

    In float32 on a CPU these are the engine's own log-probs to the last bit (packed rows aside).

    Rows padded on the right need no mask: causality keeps padding out of the real tokens' values. In packed rows
    the entry at a document's last token predicts another document's first: mask it.
    """
    if positions is None and document_ids is None:
        hidden = right_padded_hidden(model, tokens)
    else:
        hidden = model.hidden(tokens, positions=positions, document_ids=document_ids)
    states, targets = hidden[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    chunk = max(1, MAX_CHUNK_LOGITS // model.config.vocab_size)
    pieces = zip(states.split(chunk), targets.split(chunk), strict=True)
    logprobs = [gather_logprobs(model.logits(state), target) for state, target in pieces]
    return torch.cat(logprobs).view(tokens.shape[0], -1)
