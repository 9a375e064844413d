"""A model's weights as inference wants them: in the dtype of the products, neighbours side by side.

The forward pass is the trained model's own; only its projections are replaced. Weights are copies: an engine makes
them anew when the model's have changed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from puna.inference.packed import PackedProjection, can_pack
from puna.inference.quantize import Int8Projection
from puna.model.attention import Attention, AttentionMask, Cache
from puna.model.blockwise_attention import full_rows
from puna.model.feed_forward import FeedForward
from puna.model.rope import Rotation
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


def whole_angles(by: Rotation) -> Rotation:
    """Cosine and signed sine of all dimensions of a head: turning is then two products and a sum."""
    cos, sin = by
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def turn(
    x: Float[Tensor, "batch seq head head_dim"], by: Rotation
) -> Float[Tensor, "batch seq head head_dim"]:
    """`puna.model.rope.rotate` to the last bit, by `whole_angles`, with half as many operations."""
    cos, signed_sin = by
    wide = x.float()
    swapped = wide.roll(x.shape[-1] // 2, dims=-1)
    return (wide * cos).add_(swapped.mul_(signed_sin)).type_as(x)


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
        n_turned = self.sizes[0] + self.sizes[1]
        heads = self.wqkv(x).view(*x.shape[:2], -1, self.head_dim)
        turned = turn(heads[:, :, :n_turned], angles)
        return turned[:, :, : self.sizes[0]], turned[:, :, self.sizes[0] :], heads[:, :, n_turned:]


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


class FusedBlock(TransformerBlock):
    """The plain block with fused layers, for inference; what lies around the cache can be compiled."""

    def __init__(self, trained: TransformerBlock, project: Projector) -> None:
        nn.Module.__init__(self)
        self.attention_norm, self.ffn_norm = trained.attention_norm, trained.ffn_norm
        self.attention = FusedAttention(trained.attention, project)
        self.feed_forward = FusedFeedForward(trained.feed_forward, project)
        self.enter, self.leave = FusedBlock.before_attention, FusedBlock.after_attention

    def forward(
        self, x: Float[Tensor, "batch seq dim"], angles: Rotation, mask: AttentionMask, cache: Cache | None
    ) -> Float[Tensor, "batch seq dim"]:
        """The residual stream after attention and feed-forward."""
        if cache:
            q, k, v = self.enter(self, x, angles)
            return self.leave(self, x, cache.attend(self.attention.layer, q, k, v, mask))
        return super().forward(x, angles, mask, cache)

    def before_attention(
        self, x: Float[Tensor, "batch seq dim"], angles: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        return self.attention.project(self.attention_norm(x), angles)

    def after_attention(
        self, x: Float[Tensor, "batch seq dim"], attended: Float[Tensor, "batch seq inner"]
    ) -> Float[Tensor, "batch seq dim"]:
        """The residual stream from what attention found."""
        h = x + self.attention.wo(attended)
        return h + self.feed_forward(self.ffn_norm(h))


class FusedTransformer(Transformer):
    """The same function of the tokens as the trained model under autocast to `dtype`, or that with 8-bit weights."""

    def __init__(
        self,
        trained: Transformer,
        *,
        dtype: torch.dtype,
        has_int8_weights: bool = False,
        compiles: bool = False,
    ) -> None:
        """
        Args:
            compiles: By torch.compile, one graph before and one after attention for all layers and sizes. On CUDA the
                products of a single row are then sums that read each weight once, 8-bit ones too.
        """
        with torch.device("meta"):
            super().__init__(trained.config)
        packs = (
            can_pack(trained.norm.weight, dtype) and not compiles
        )  # a compiler cannot look into packed weights
        kind = Int8Projection if has_int8_weights else PackedProjection if packs else Projection
        project = partial(kind, dtype=dtype)
        self.tok_embeddings, self.norm = trained.tok_embeddings, trained.norm
        blocks = [FusedBlock(cast(TransformerBlock, block), project) for block in trained.layers]
        if compiles:
            options: dict[str, Any] | None = (
                {"coordinate_descent_tuning": True} if trained.norm.weight.is_cuda else None
            )
            enter = torch.compile(FusedBlock.before_attention, dynamic=True, options=options)
            leave = torch.compile(FusedBlock.after_attention, dynamic=True, options=options)
            for block in blocks:
                block.enter, block.leave = enter, leave
        self.layers = nn.ModuleList(blocks)
        head = trained.tok_embeddings if trained.config.tie_embeddings else trained.output
        self.add_module("output", project(head.weight))

    def angles(self, positions: Int[Tensor, "batch_or_1 seq"]) -> Rotation:
        """For `turn`."""
        return whole_angles(super().angles(positions))

    def logits(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Unnormalized log-probabilities of the next token, in float32."""
        return full_rows(self.output, hidden).float()
