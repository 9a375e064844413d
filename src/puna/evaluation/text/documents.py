"""Held-out documents by source, cut from the token shards at <s>."""

from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from puna.core.errors import DataError
from puna.training.token_shards import TokenStream, read_index

__all__ = ["held_out_documents"]


def held_out_documents(data: Path, *, bos_id: int, n_tokens: int) -> dict[str, list[Int64[Tensor, " _"]]]:
    """Documents of at least n_tokens, <s> included, of every source that has any.

    Raises:
        DataError: no held-out document is that long.
    """
    index = read_index(data)
    found: dict[str, list[Tensor]] = {}
    n_longest = 0
    for source, shard in sorted(index.validation.items()):
        tokens = TokenStream(data, [shard], index.dtype).read(0, shard.n_tokens)
        starts = torch.nonzero(tokens == bos_id).flatten().tolist()
        ends = [*starts[1:], len(tokens)]
        documents = [tokens[start:end] for start, end in zip(starts, ends, strict=True)]
        n_longest = max([n_longest, *map(len, documents)])
        if long := [document for document in documents if len(document) >= n_tokens]:
            found[source] = long
    if not found:
        raise DataError(
            where=str(data),
            expected=f"held-out documents of at least {n_tokens} tokens",
            got=f"none longer than {n_longest}",
            fix="Lower n_tokens, or hold out more text.",
        )
    return found
