"""Next-token prediction on windows of a token stream (§2): every token is a target, in a seeded order."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from puna.core.errors import DataError
from puna.model.accounting import training_flops_per_token
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.training.losses import next_token_loss
from puna.training.order import ShuffledOrder
from puna.training.task import LossSum
from puna.training.token_shards import TokenStream, read_index

__all__ = ["PretrainingTask", "document_layout"]

Rows = Int64[Tensor, "rows seq_plus_1"]


class PretrainingTask:
    """Learns the training shards and measures the held-out ones source by source."""

    def __init__(
        self, model: Transformer, config: PretrainingConfig, *, data: Path, bos_id: int, seed: int
    ) -> None:
        self.model = model
        self._config = config
        self._bos_id = bos_id
        index = read_index(data)
        self._train = TokenStream(data, index.train, index.dtype)
        self._validation = {
            source: TokenStream(data, [shard], index.dtype)
            for source, shard in sorted(index.validation.items())
        }
        n_windows = self._train.n_windows(config.seq_len)
        if n_windows == 0:
            raise DataError(
                where=str(data),
                expected=f"at least one row of {config.seq_len + 1} training tokens",
                got=f"{len(self._train)} tokens",
                fix="Add text or lower seq_len.",
            )
        self._order = ShuffledOrder(n_windows, batch_size=config.loop.batch_size, seed=seed)

    @property
    def flops_per_token(self) -> float:
        """Operations of one token's training, for MFU."""
        return training_flops_per_token(self.model.config, seq_len=self._config.seq_len)

    def micro_batches(self, step: int) -> Sequence[Rows]:
        """The rows of one update, read from the shards."""
        pieces = self._order.micro_batches(step, self._config.loop.micro_batch_size)
        return [self._train.windows(piece, self._config.seq_len) for piece in pieces]

    def loss(self, batch: Rows) -> LossSum:
        """Sum of -log p over every target of the rows."""
        rows = batch.to(self.model.norm.weight.device)
        tokens, targets = rows[:, :-1], rows[:, 1:]
        document_ids = positions = None
        if self._config.isolate_documents:
            document_ids, positions = document_layout(tokens, self._bos_id)
        hidden = self.model.hidden(tokens, positions=positions, document_ids=document_ids)
        nats, n_targets = next_token_loss(self.model, hidden, targets, None)
        return LossSum(nats, n_targets)

    def evaluate(self) -> dict[str, float]:
        """Held-out loss in nats per token and perplexity: all sources together, and each."""
        sums: dict[str, tuple[float, int]] = {}
        for source, stream in self._validation.items():
            losses = [self.loss(rows) for rows in self._held_out_rows(stream)]
            n_targets = sum(loss.n_targets for loss in losses)
            if n_targets:
                sums[source] = (sum(loss.sum.item() for loss in losses), n_targets)
        if not sums:
            return {}
        total = (sum(nats for nats, _ in sums.values()), sum(n for _, n in sums.values()))
        values: dict[str, float] = {}
        for suffix, (nats, n) in {"": total, **{f"/{source}": pair for source, pair in sums.items()}}.items():
            values[f"loss{suffix}"] = nats / n
            values[f"perplexity{suffix}"] = math.exp(nats / n)
        return values

    def _held_out_rows(self, stream: TokenStream) -> Iterator[Rows]:
        """The first validation_tokens of a stream as full rows, then what is left as one shorter row."""
        seq_len, size = self._config.seq_len, self._config.loop.micro_batch_size
        n_tokens = min(len(stream), self._config.validation_tokens)
        n_full = max(0, n_tokens - 1) // seq_len
        for first in range(0, n_full, size):
            yield stream.windows(range(first, min(first + size, n_full)), seq_len)
        rest = stream.read(n_full * seq_len, n_tokens - n_full * seq_len)
        if len(rest) > 1:
            yield rest[None]


def document_layout(
    tokens: Int64[Tensor, "rows seq"], bos_id: int
) -> tuple[Int64[Tensor, "rows seq"], Int64[Tensor, "rows seq"]]:
    """Which document each token of a row belongs to, and its place in it; <s> opens a document."""
    is_first = tokens == bos_id
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    starts = torch.where(is_first, places, 0).cummax(dim=1).values
    return is_first.cumsum(dim=1), places - starts
