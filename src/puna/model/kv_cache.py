"""Keys and values of the tokens already seen, preallocated, for prompts padded on the left."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.model.attention import AttentionMask, attend
from puna.model.blockwise_attention import MASKED
from puna.model.config import ModelConfig

__all__ = ["KVCache"]


class KVCache:
    """One buffer for all layers; every row writes the same column, so a decode step is a slice.

    Rows whose prompt is shorter are padded on the left: `n_padding` counts those columns, which nobody attends to.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch_size: int,
        max_len: int,
        n_padding: Int[Tensor, " batch"] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (2, config.n_layers, batch_size, config.n_kv_heads, max_len, config.head_dim)
        self.keys, self.values = torch.empty(shape, dtype=dtype, device=device)
        self.n_padding = n_padding
        self.length = 0
        """Columns that every layer has filled."""

    def store(
        self,
        layer: int,
        keys: Float[Tensor, "batch seq kv_head head_dim"],
        values: Float[Tensor, "batch seq kv_head head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_head key head_dim"], Float[Tensor, "batch kv_head key head_dim"]]:
        """Append one layer's new columns and return all of that layer's, without a copy."""
        end = self.length + keys.shape[1]
        self.keys[layer, :, :, self.length : end] = keys.transpose(1, 2)
        self.values[layer, :, :, self.length : end] = values.transpose(1, 2)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "batch seq head head_dim"],
        k: Float[Tensor, "batch seq kv_head head_dim"],
        v: Float[Tensor, "batch seq kv_head head_dim"],
        mask: AttentionMask,
    ) -> Float[Tensor, "batch seq q_dim"]:
        """Store the new columns, then attend to all of the layer's."""
        keys, values = self.store(layer, k, v)
        return attend(q.transpose(1, 2), keys, values, mask).transpose(1, 2).flatten(2)

    def advance(self, n_new: int) -> None:
        """All layers have stored the new columns."""
        self.length += n_new

    def mask(self, n_new: int) -> AttentionMask:
        """Each new column sees those before it and itself, padding excepted; None where causality alone decides."""
        if self.n_padding is None and (self.length == 0 or n_new == 1):
            return None
        columns = torch.arange(self.length + n_new, device=self.keys.device)
        is_seen = (columns <= columns[self.length :, None])[None]  # (1, query, key)
        if self.n_padding is not None:
            is_seen = is_seen & (columns >= self.n_padding[:, None])[:, None]
        return torch.where(is_seen, 0.0, MASKED)[:, None]

    def positions(self, n_new: int) -> Int[Tensor, "batch_or_1 seq"]:
        """Positions of the next columns, counted from each row's first real token (0 on padding)."""
        columns = torch.arange(self.length, self.length + n_new, device=self.keys.device)[None]
        return columns if self.n_padding is None else (columns - self.n_padding[:, None]).clamp(min=0)

    def select(self, rows: Int[Tensor, " row"]) -> "KVCache":
        """Keep these rows, in this order; a row named twice is copied (many samples of one prompt)."""
        self.keys, self.values = self._select(self.keys, rows), self._select(self.values, rows)
        self.n_padding = None if self.n_padding is None else self.n_padding[rows]
        return self

    def _select(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """A new buffer of the same columns; only the filled ones are copied."""
        kept = buffer.new_empty(buffer.shape[0], len(rows), *buffer.shape[2:])
        kept[:, :, :, : self.length] = buffer[:, :, :, : self.length].index_select(1, rows)
        return kept
