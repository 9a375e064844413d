"""One transformer block out of the parts beside this file, and when it may stand in for the plain one."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.attention.flex_attention import BlockMask

from puna.model.attention import AttentionMask, attend
from puna.model.rope import Rotation
from puna.model.transformer import TransformerBlock
from puna.training.speed.handwritten.attention_heads import add_projected_heads, project_heads
from puna.training.speed.handwritten.causal_attention import attend_causally
from puna.training.speed.handwritten.feed_forward import feed_forward_sublayer

__all__ = ["BlockWeights", "suits_block", "train_block", "weights_of"]


class BlockWeights(NamedTuple):
    """The parameters of a block, by their names in it."""

    attention_norm: Tensor
    wq: Tensor
    wk: Tensor
    wv: Tensor
    wo: Tensor
    ffn_norm: Tensor
    w1: Tensor
    w2: Tensor
    w3: Tensor


def weights_of(block: TransformerBlock) -> BlockWeights:
    """The parameters as they are now: sharding puts others in their place from call to call."""
    a, f = block.attention, block.feed_forward
    return BlockWeights(
        block.attention_norm.weight,
        a.wq.weight,
        a.wk.weight,
        a.wv.weight,
        a.wo.weight,
        block.ffn_norm.weight,
        f.w1.weight,
        f.w2.weight,
        f.w3.weight,
    )


def suits_block(x: Tensor, weight: Tensor) -> bool:
    """Whether gradients are wanted here of float32 weights whose products autocast makes in a lower precision.

    Not where a compiler fuses the plain formulas, nor for weights that are spread over processes.
    """
    return (
        torch.is_grad_enabled()
        and torch.is_autocast_enabled(x.device.type)
        and x.dtype == weight.dtype == torch.float32
        and not isinstance(weight, DTensor)
        and not torch.compiler.is_compiling()
    )


def train_block(
    x: Float[Tensor, "batch seq dim"],
    weights: BlockWeights,
    angles: Rotation,
    mask: AttentionMask,
    *,
    eps: float,
) -> Float[Tensor, "batch seq dim"]:
    """The plain block's output up to rounding, products in autocast's dtype."""
    w, dtype = weights, torch.get_autocast_dtype(x.device.type)
    q, k, v = project_heads(
        x, w.attention_norm, w.wq, w.wk, w.wv, torch.complex(*angles), eps=eps, dtype=dtype
    )
    x = add_projected_heads(x, _attend(q, k, v, mask), w.wo)
    return feed_forward_sublayer(x, w.ffn_norm, w.w1, w.w2, w.w3, eps=eps, dtype=dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Tensor:
    if q.device.type != "cpu" or isinstance(mask, BlockMask):
        return attend(q, k, v, mask)
    return attend_causally(q, k, v, mask)
