"""Grouped-query attention (§2.2, App. A.2.1) and its masks: causal, packed documents, left padding."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from puna.model.blockwise_attention import MASKED, attend_blocks
from puna.model.config import ModelConfig
from puna.model.packed_attention import attend_packed, packed_mask, suits_flex
from puna.model.rope import Rotation, rotate

__all__ = ["Attention", "AttentionMask", "Cache", "attend", "attention_mask"]

AttentionMask = Float[Tensor, "batch_or_1 1 query key"] | BlockMask | None
"""What to add to the scores, or the blocks of scores to compute; None is causal."""

BLOCKWISE_MAX_KEYS = 1024
"""Float32 on a CPU keeps the engine's bits up to this many keys while gradients are on; beyond, memory decides."""

MATMUL_MAX_KEYS = 384
"""On a CPU, matrix products beat torch's fused kernel up to about this many keys. Measured on two cores, training
nano in bf16: 48,000 against 30,000 tokens/s at 128 keys, and 17,700 against 14,100 in packed rows of 384; in fp32 the
fused kernel wins from 512 keys on."""


@runtime_checkable
class Cache(Protocol):
    """Keys and values of the tokens already seen; it attends by itself, for it knows how they lie."""

    def positions(self, n_new: int) -> Int[Tensor, "batch_or_1 seq"]:
        """Positions of the next tokens."""
        ...

    def mask(self, n_new: int) -> AttentionMask:
        """Whom the next tokens see, made once per forward pass."""
        ...

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "batch seq head head_dim"],
        k: Float[Tensor, "batch seq kv_head head_dim"],
        v: Float[Tensor, "batch seq kv_head head_dim"],
        mask: AttentionMask,
    ) -> Float[Tensor, "batch seq q_dim"]:
        """Store one layer's new keys and values, then attend to all that the queries see."""
        ...

    def advance(self, n_new: int) -> None:
        """All layers have stored the new tokens."""
        ...


def attention_mask(
    document_ids: Int[Tensor, "batch seq"] | None, *, head_dim: int | None = None
) -> AttentionMask:
    """Who sees whom without a cache, made once per forward pass; None where causality alone decides.

    Args:
        document_ids: Tokens attend within their own document only; filler shares the id -1 and sees only filler.
        head_dim: Where it is known, packed documents on CUDA get a block mask instead of a dense one.
    """
    if document_ids is None:
        return None
    if head_dim and suits_flex(document_ids.device, head_dim):
        return packed_mask(document_ids)
    tokens = torch.arange(document_ids.shape[1], device=document_ids.device)
    is_seen = tokens <= tokens[:, None]  # (query, key)
    is_seen = is_seen & (document_ids[:, :, None] == document_ids[:, None, :])
    return torch.where(is_seen, 0.0, MASKED)[:, None]


def attend(
    q: Float[Tensor, "batch head query head_dim"],
    k: Float[Tensor, "batch kv_head key head_dim"],
    v: Float[Tensor, "batch kv_head key head_dim"],
    mask: AttentionMask,
) -> Float[Tensor, "batch head query head_dim"]:
    """softmax(q k^T / sqrt(head_dim) + mask) v, with the softmax in float32.

    Args:
        mask: None is causal; queries are then all the keys, or a single one that sees them all.
    Differs: query head j reads key head j // (n_heads / n_kv_heads), as Meta's repeat does, without the copies.
    """
    if isinstance(mask, BlockMask):
        return attend_packed(q, k, v, mask)
    n_query, n_keys = q.shape[2], k.shape[2]
    is_causal = mask is None and n_query > 1
    if _keeps_bits(q, n_keys):
        return attend_blocks(q, k, v, q.new_zeros(1, 1, 1, n_keys) if mask is None and n_query == 1 else mask)
    if q.device.type != "cpu" or n_keys > MATMUL_MAX_KEYS:
        bias = None if mask is None else mask.type_as(q)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=is_causal, enable_gqa=True)
    if is_causal:
        mask = torch.full((n_query, n_keys), MASKED).triu_(1)
    grouped = (q * q.shape[3] ** -0.5).reshape(q.shape[0], k.shape[1], -1, q.shape[3])
    scores = (grouped @ k.transpose(2, 3)).view(*q.shape[:3], n_keys)
    probs = (scores if mask is None else scores + mask).softmax(dim=-1, dtype=torch.float32).type_as(v)
    return (probs.view(*grouped.shape[:3], n_keys) @ v).view_as(q)


def _keeps_bits(q: Tensor, n_keys: int) -> bool:
    """Whether this call's sums must be the engine's: float32 on a CPU, where log-probs are equal to the last bit."""
    if q.device.type != "cpu" or q.dtype != torch.float32:
        return False
    return n_keys <= BLOCKWISE_MAX_KEYS or not torch.is_grad_enabled()


class Attention(nn.Module):
    """Self-attention of one layer."""

    def __init__(self, config: ModelConfig, *, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.wq = nn.Linear(config.dim, config.q_dim, bias=False)
        self.wk = nn.Linear(config.dim, config.kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, config.kv_dim, bias=False)
        self.wo = nn.Linear(config.q_dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        angles: Rotation,
        mask: AttentionMask,
        cache: Cache | None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Attend to this call's tokens and to the cached ones."""
        q, k, v = self.project(x, angles)
        if cache:
            return self.wo(cache.attend(self.layer, q, k, v, mask))
        by_head = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.wo(by_head.transpose(1, 2).flatten(2))

    def project(
        self, x: Float[Tensor, "batch seq dim"], angles: Rotation
    ) -> tuple[
        Float[Tensor, "batch seq head head_dim"],
        Float[Tensor, "batch seq kv_head head_dim"],
        Float[Tensor, "batch seq kv_head head_dim"],
    ]:
        """Queries, keys and values; the first two turned to their positions."""
        q, k, v = (w(x).unflatten(-1, (-1, self.head_dim)) for w in (self.wq, self.wk, self.wv))
        return rotate(q, angles), rotate(k, angles), v
