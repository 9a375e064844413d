"""Does a model find a passage again over a distance: a passage, other text, the passage's beginning; what follows?

A stand-in for the long tasks of Table 16, whose answers lie thousands of tokens back: this one needs no instructions,
so a model of any size can be asked, and the same rows with the passage taken out say what is known without it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from puna.core.seeding import rng
from puna.model.transformer import Transformer

__all__ = ["recall_hits", "recall_rows"]


def recall_rows(
    documents: Sequence[Int64[Tensor, " _"]],
    *,
    distance: int,
    passage_tokens: int,
    n_passages: int,
    seed: int,
    is_control: bool = False,
) -> Int64[Tensor, "passages seq"]:
    """<s> passage, `distance` tokens of another document, the passage again; all from seeded places.

    Args:
        is_control: Put a passage of a third document in the first place: nothing is there to be found.
    """
    draw = rng(seed, "recall", distance)
    bos, rows = documents[0][:1], []

    def cut(n_tokens: int) -> Tensor:
        document = documents[draw.randrange(len(documents))]
        start = draw.randint(1, len(document) - n_tokens)
        return document[start : start + n_tokens]

    for _ in range(n_passages):
        passage, filler, other = cut(passage_tokens), cut(distance), cut(passage_tokens)
        rows.append(torch.cat([bos, other if is_control else passage, filler, passage]))
    return torch.stack(rows)


def recall_hits(
    model: Transformer, rows: Int64[Tensor, "passages seq"], *, n_asked: int, context: int, batch_rows: int
) -> Bool[Tensor, "passages asked"]:
    """Whether the likeliest token is the passage's, for its last n_asked tokens, each asked with those before it.

    The model reads the last `context` tokens only: a longer distance takes the passage out of its sight.
    """
    rows = rows[:, max(0, rows.shape[1] - context - 1) :].to(model.tok_embeddings.weight.device)
    hits = []
    for piece in rows.split(batch_rows):
        hidden = model.hidden(piece[:, :-1])[:, -n_asked:]
        hits.append(model.logits(hidden).argmax(dim=-1) == piece[:, -n_asked:])
    return torch.cat(hits)
