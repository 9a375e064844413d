"""A model's weights as inference on a CPU wants them: in the dtype of the products, neighbours side by side.

The forward pass is the trained model's own; only its projections are replaced. Weights are copies: an engine makes
them anew when the model's have changed.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from puna.inference.quantize import Int8Projection
from puna.model.attention import Attention
from puna.model.blockwise_attention import full_rows
from puna.model.feed_forward import FeedForward
from puna.model.rope import Rotation, rotate
from puna.model.transformer import Transformer, TransformerBlock

__all__ = ["FusedTransformer", "Projection"]


Projector = Callable[..., nn.Module]
"""Makes one layer of one or more weight matrices."""


class Projection(nn.Module):
    """Some linear layers of one input, in one product; the output has the weight's dtype."""

    weight: Tensor

    def __init__(self, *weights: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        joined = (
            torch.cat([weight.detach() for weight in weights]) if len(weights) > 1 else weights[0].detach()
        )
        self.register_buffer("weight", joined.to(dtype), persistent=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch outer"]:
        """x W^T."""
        return F.linear(x.to(self.weight.dtype), self.weight)


class FusedAttention(Attention):
    """Queries, keys and values from one product."""

    def __init__(self, trained: Attention, project: Projector) -> None:
        nn.Module.__init__(self)
        self.layer, self.head_dim = trained.layer, trained.head_dim
        self.sizes = [w.weight.shape[0] // trained.head_dim for w in (trained.wq, trained.wk, trained.wv)]
        self.wqkv = project(trained.wq.weight, trained.wk.weight, trained.wv.weight)
        self.add_module("wo", project(trained.wo.weight))

    def project(self, x: Float[Tensor, "batch seq dim"], angles: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; the first two turned to their positions, together."""
        heads = self.wqkv(x).unflatten(-1, (-1, self.head_dim))
        q, k = rotate(heads[:, :, : sum(self.sizes[:2])], angles).split(self.sizes[:2], dim=2)
        return q, k, heads[:, :, sum(self.sizes[:2]) :]


class FusedFeedForward(FeedForward):
    """Gate and input from one product."""

    def __init__(self, trained: FeedForward, project: Projector) -> None:
        nn.Module.__init__(self)
        self.w13 = project(trained.w1.weight, trained.w3.weight)
        self.add_module("w2", project(trained.w2.weight))

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        """Widen, gate, narrow."""
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * value)


class FusedTransformer(Transformer):
    """The same function of the tokens as the trained model under autocast to `dtype`, or that with 8-bit weights."""

    def __init__(self, trained: Transformer, *, dtype: torch.dtype, has_int8_weights: bool = False) -> None:
        with torch.device("meta"):
            super().__init__(trained.config)
        project = partial(Int8Projection if has_int8_weights else Projection, dtype=dtype)
        self.tok_embeddings, self.norm = trained.tok_embeddings, trained.norm
        for index, block in enumerate(trained.layers):
            source = cast(TransformerBlock, block)
            fused = cast(TransformerBlock, self.layers[index])
            fused.attention_norm, fused.ffn_norm = source.attention_norm, source.ffn_norm
            fused.attention = FusedAttention(source.attention, project)
            fused.feed_forward = FusedFeedForward(source.feed_forward, project)
        head = trained.tok_embeddings if trained.config.tie_embeddings else trained.output
        self.add_module("output", project(head.weight))

    def logits(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Unnormalized log-probabilities of the next token, in float32."""
        return full_rows(self.output, hidden).float()
