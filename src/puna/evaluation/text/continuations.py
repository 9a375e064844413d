"""Which of several passages goes on a document: zero-shot choice, as HellaSwag asks, on any held-out text."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from puna.core.seeding import rng
from puna.evaluation.text.positions import windowed_logprobs
from puna.model.transformer import Transformer

__all__ = ["choice_hits", "choice_items"]

Rows = Int64[Tensor, "choices seq"]


def choice_items(
    documents: Sequence[Int64[Tensor, " _"]],
    *,
    n_tokens: int,
    continuation_tokens: int,
    n_choices: int,
    max_items: int,
    seed: int,
) -> list[Rows]:
    """Items whose first row is the document and whose others end like other documents of the source.

    Ends are taken at the same place, so neither length nor position gives the answer away.
    """
    order = rng(seed, "continuations").sample(range(len(documents)), len(documents))
    items = []
    for place, own in enumerate(order[:max_items]):
        others = [order[(place + offset) % len(order)] for offset in range(1, n_choices)]
        if len({own, *others}) < n_choices:
            break
        opening = documents[own][: n_tokens - continuation_tokens]
        ends = [documents[i][n_tokens - continuation_tokens : n_tokens] for i in (own, *others)]
        items.append(torch.stack([torch.cat([opening, end]) for end in ends]))
    return items


def choice_hits(
    model: Transformer, items: Sequence[Rows], *, continuation_tokens: int, context: int, batch_rows: int
) -> list[bool]:
    """Whether the document's own continuation is the likeliest, item by item; a tie is a miss."""
    if not items:
        return []
    rows, n_choices = torch.cat(list(items)), items[0].shape[0]
    rows = rows[:, max(0, rows.shape[1] - context - 1) :]
    scores = [
        windowed_logprobs(model, piece, context=context)[:, -continuation_tokens:].sum(dim=1)
        for piece in rows.split(batch_rows)
    ]
    by_item = torch.cat(scores).view(-1, n_choices)
    return (by_item[:, 0] > by_item[:, 1:].max(dim=1).values).tolist()
