"""One forward pass of the engine: many sequences' tokens, a row each, against the paged cache."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from puna.core.devices import available_memory_bytes
from puna.core.errors import ConfigError
from puna.inference.attention_plan import Heads, Pieces, plan_attention
from puna.inference.cuda_graphs import DecodeGraphs, decode_bucket
from puna.inference.paged_cache import PagedCache
from puna.inference.weights import inference_model
from puna.model.accounting import kv_cache_bytes
from puna.model.blockwise_attention import BLOCK_TOKENS, ROW_MULTIPLE, round_up
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

__all__ = ["Runner", "fill_rows", "pool_blocks"]

MEMORY_FRACTION = {"cpu": 0.25, "cuda": 0.8}
"""Of the memory that is free when an engine starts, what its cache may take; our choice."""


def fill_rows(n_tokens: int, dtype: torch.dtype, *, widest: int = 0) -> int:
    """Rows that a step of so many tokens has: a few sizes, each with the same bits in every row.

    Args:
        widest: Longest sum in a product. A single bfloat16 row of more than 1,024 is summed in another order.
    """
    if dtype == torch.float32 or n_tokens > 8:
        return round_up(n_tokens, ROW_MULTIPLE)
    return max(1 << (n_tokens - 1).bit_length(), 2 if widest > 1024 else 1)


def pool_blocks(
    config: ModelConfig, *, n_slots: int, cache_bytes: int | None, dtype: torch.dtype, device: torch.device
) -> int:
    """Blocks of the pool: enough for every slot's whole context, or what the memory allows.

    Raises:
        ConfigError: the memory does not hold one block beside the one for fillers.
    """
    wanted = 1 + n_slots * -(-config.max_seq_len // BLOCK_TOKENS)
    block_bytes = kv_cache_bytes(config, batch_size=1, seq_len=BLOCK_TOKENS, bytes_per_number=dtype.itemsize)
    allowed = cache_bytes
    if allowed is None:
        allowed = int(MEMORY_FRACTION[device.type] * available_memory_bytes(device))
    n_blocks = min(wanted, allowed // block_bytes)
    if n_blocks < 2:
        raise ConfigError(
            where="the engine's cache",
            expected=f"memory for at least two blocks, {2 * block_bytes:,} bytes",
            got=f"{allowed:,} bytes",
            fix="Free memory, or take a smaller model.",
        )
    return n_blocks


class Runner:
    """A model with its cache; takes new copies of the weights when it is told."""

    def __init__(
        self,
        model: Transformer,
        *,
        n_blocks: int,
        dtype: torch.dtype,
        has_int8_weights: bool = False,
        compiles: bool = False,
    ) -> None:
        self.trained, self.dtype = model, dtype
        self._has_int8_weights, self._compiles = has_int8_weights, compiles
        self.device = model.tok_embeddings.weight.device
        self.cache = PagedCache(model.config, n_blocks=n_blocks, dtype=dtype, device=self.device)
        is_picky = dtype == torch.float32 and self.device.type == "cpu"
        self._heads = Heads.of(model.config, is_picky=is_picky)
        self._widest = max(model.config.dim, model.config.hidden_dim)
        self.renew()

    def renew(self) -> None:
        """Take the weights as they now are."""
        self.model = inference_model(
            self.trained, self.dtype, has_int8_weights=self._has_int8_weights, compiles=self._compiles
        )
        self._graphs = DecodeGraphs(self.model, self.cache) if self.device.type == "cuda" else None

    def hidden(
        self, tokens: NDArray[np.int64], pieces: Pieces, copies: tuple[list[int], list[int]]
    ) -> Float[Tensor, "token dim"]:
        """States of the step's tokens, fillers cut off.

        Args:
            tokens: One after the other, as the pieces have them.
            copies: Blocks to copy first: from, to.
        """
        if copies[0]:
            self.cache.copy_blocks(torch.tensor(copies[0]), torch.tensor(copies[1]))
        n_tokens = len(tokens)
        is_decode = self._graphs is not None and n_tokens == len(pieces)
        if is_decode:
            n_seen = int(pieces.first_positions.max()) // BLOCK_TOKENS + 1
            n_rows, n_places = decode_bucket(n_tokens, n_seen)
        else:
            n_rows, n_places = fill_rows(n_tokens, self.dtype, widest=self._widest), 1
        plan = plan_attention(
            pieces,
            self._heads,
            n_rows=n_rows,
            n_blocks=self.cache.n_blocks,
            device=self.device,
            dtype=self.dtype,
            gathers=self.device.type != "cpu",
            n_places=n_places,
        )
        filled = np.zeros((2, n_rows), dtype=np.int64)
        filled[0, :n_tokens], filled[1, :n_tokens] = tokens, pieces.positions()
        rows = torch.from_numpy(filled).to(self.device)[:, :, None]
        with torch.autocast(self.device.type, enabled=False):
            if is_decode and self._graphs is not None:
                hidden = self._graphs.hidden(rows, plan)
            else:
                self.cache.plan = plan
                hidden = self.model.hidden(rows[0], positions=rows[1], cache=self.cache)
        return hidden[:n_tokens, 0]

    def logits(self, hidden: Float[Tensor, "token dim"]) -> Float[Tensor, "token vocab"]:
        """Logits of some of the states."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model.logits(hidden)
