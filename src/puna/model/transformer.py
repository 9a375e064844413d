"""The Llama 2 transformer (§2.2): pre-normalization with RMSNorm, SwiGLU, rotary positions, grouped-query attention."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from puna.core.errors import ShapeError
from puna.model.attention import Attention, AttentionMask, Cache, attention_mask
from puna.model.blockwise_attention import full_rows
from puna.model.config import ModelConfig
from puna.model.feed_forward import FeedForward
from puna.model.init import init_weights
from puna.model.rms_norm import RMSNorm
from puna.model.rope import Rotation, rotation

__all__ = ["Transformer", "TransformerBlock"]


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, *, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config, layer=layer)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Float[Tensor, "batch seq dim"], angles: Rotation, mask: AttentionMask, cache: Cache | None
    ) -> Float[Tensor, "batch seq dim"]:
        h = x + self.attention(self.attention_norm(x), angles, mask, cache)
        return h + self.feed_forward(self.ffn_norm(h))


class Transformer(nn.Module):
    """A decoder that reads tokens and predicts the next one at every position."""

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(TransformerBlock(config, layer=i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        if not config.tie_embeddings:
            self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        init_weights(self, seed=seed)

    def hidden(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        positions: Int[Tensor, "batch_or_1 seq"] | None = None,
        document_ids: Int[Tensor, "batch seq"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """States after the final norm; logits of chosen positions are made from them.

        Args:
            positions: For the rotary angles; by default counted from each row's start (from the cache's end).
            document_ids: Packed rows: tokens see their own document only; -1 marks filler.
            cache: Filled with these tokens; they see the ones before them. Not together with document_ids.
        Raises:
            ShapeError: the row is longer than the context.
        """
        assert cache is None or document_ids is None, "a cache holds one document per row"
        n_new = tokens.shape[1]
        if positions is None:
            _check_length(n_new, self.config)
            positions = cache.positions(n_new) if cache else torch.arange(n_new, device=tokens.device)[None]
        angles = self.angles(positions)
        mask = cache.mask(n_new) if cache else attention_mask(document_ids, head_dim=self.config.head_dim)
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x, angles, mask, cache)
        if cache:
            cache.advance(n_new)
        return self.norm(x)

    def angles(self, positions: Int[Tensor, "batch_or_1 seq"]) -> Rotation:
        """The rotary angles of a forward pass, made once for all layers."""
        c = self.config
        return rotation(positions, head_dim=c.head_dim, theta=c.rope_theta, scaling=c.rope_scaling)

    @property
    def output_weight(self) -> Float[Tensor, "vocab dim"]:
        """The matrix that makes logits."""
        return self.tok_embeddings.weight if self.config.tie_embeddings else self.output.weight

    def logits(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Unnormalized log-probabilities of the next token, in float32."""
        weight = self.output_weight
        return full_rows(lambda rows: F.linear(rows, weight), hidden).float()

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        positions: Int[Tensor, "batch seq"] | None = None,
        document_ids: Int[Tensor, "batch seq"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits at every position."""
        return self.logits(self.hidden(tokens, positions=positions, document_ids=document_ids, cache=cache))


def _check_length(n_tokens: int, config: ModelConfig) -> None:
    if n_tokens > config.max_seq_len:
        raise ShapeError(
            where="model input",
            expected=f"at most {config.max_seq_len} tokens (the model's context)",
            got=f"{n_tokens}",
            fix="Shorten the text or train with a longer context.",
        )
