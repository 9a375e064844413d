"""Attention of packed documents on CUDA: flex_attention skips the blocks that a dense mask would only hide.

Chosen over variable-length attention because it takes the same rows, document ids and filler as the dense mask does.
On a CPU it has no backward pass: there attention.py uses the dense mask, and tests hold the two together.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

__all__ = ["attend_packed", "packed_mask", "suits_flex"]

FLEX_MIN_HEAD_DIM = 16
"""Narrowest head that torch's flex kernel compiles for."""


def suits_flex(device: torch.device, head_dim: int) -> bool:
    """Whether the kernel runs there, forwards and backwards."""
    return device.type == "cuda" and head_dim >= FLEX_MIN_HEAD_DIM


def packed_mask(document_ids: Int[Tensor, "batch seq"]) -> BlockMask:
    """Which blocks of scores to compute: a token sees its own document, up to itself; filler (-1) sees filler."""

    n_rows, n_tokens = document_ids.shape
    return create_block_mask(
        lambda row, _, query, key: (key <= query) & (document_ids[row, query] == document_ids[row, key]),
        n_rows,
        None,
        n_tokens,
        n_tokens,
        device=document_ids.device,
        _compile=document_ids.is_cuda,  # or it would hold every pair for a moment
    )


def attend_packed(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    mask: BlockMask,
) -> Float[Tensor, "batch head seq head_dim"]:
    """Attention within the mask, compiled on CUDA; elsewhere in plain torch operations, for tests."""
    kernel: Any = _compiled() if q.is_cuda else flex_attention
    return kernel(q, k, v, block_mask=mask, enable_gqa=True)


@cache
def _compiled() -> Callable[..., Any]:
    """The fused kernel; without compilation flex_attention would build every score."""
    return torch.compile(flex_attention)
