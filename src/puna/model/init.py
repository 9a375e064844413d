"""Weights before training. The paper is silent: laws and scales are our choice.

A fixed 0.02, as in published Llama configurations, suits widths near 4,096, where 1 / sqrt(fan-in) is 0.016 and starves
narrow models: at width 128 one learns to copy from its prompt after about twice the tokens (docs/log.md).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from puna.core.seeding import generator

__all__ = ["init_score_head", "init_weights", "initial_weights"]

FIRST_SCORE_STD = 0.1
"""Standard deviation, in logits, of an untrained score; our choice, so that the ranking loss starts near log 2."""


@torch.no_grad()
def init_weights(model: nn.Module, *, seed: int) -> None:
    """Fill projections from N(0, 1 / fan-in) and untied embeddings from N(0, 1); norms keep their ones.

    The two projections that write to the residual stream, wo and w2, are scaled by 1 / sqrt(2 n_layers), so that
    the stream's variance does not grow with depth. A model on the meta device is left alone: a file will fill it.
    """
    for weight, drawn in initial_weights(model, seed=seed):
        if not weight.is_meta:
            weight.copy_(drawn)


def initial_weights(model: nn.Module, *, seed: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter with its first value, one at a time and in order: pieces of a model are cut from the same draws.

    Nothing is drawn for a model on the meta device.
    """
    source = generator(seed, "init")
    has_own_output = any(name.endswith("output.weight") for name, _ in model.named_parameters())
    n_writes = sum(name.endswith(("wo.weight", "w2.weight")) for name, _ in model.named_parameters())
    for name, weight in model.named_parameters():
        if weight.is_meta:
            continue
        if weight.ndim != 2:
            yield weight, torch.ones(weight.shape)
            continue
        is_write = name.endswith(("wo.weight", "w2.weight"))
        std = weight.shape[1] ** -0.5 * (n_writes**-0.5 if is_write else 1.0)
        if name.endswith("tok_embeddings.weight") and has_own_output:
            std = 1.0
        yield weight, torch.empty(weight.shape).normal_(0.0, std, generator=source)


@torch.no_grad()
def init_score_head(head: nn.Linear, *, seed: int) -> None:
    """Fill a scalar head from N(0, FIRST_SCORE_STD^2 / dim): small first scores, whatever the width. Our choice."""
    if not head.weight.is_meta:
        std = FIRST_SCORE_STD * head.in_features**-0.5
        source = generator(seed, "score_head")
        head.weight.copy_(torch.empty(head.weight.shape).normal_(0.0, std, generator=source))
