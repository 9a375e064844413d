"""Next-token prediction on windows of a token stream (§2): every token is a target, in a seeded order."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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

    def micro_batches(self, step: int) -> "_RowsOnDemand":
        """The rows of one update, each micro-batch read from the shards when it is asked for."""
        pieces = self._order.micro_batches(step, self._config.loop.micro_batch_size)
        return _RowsOnDemand(self, pieces)

    def read(self, windows: Sequence[int]) -> Rows:
        """Rows by number.

        Raises:
            DataError: a token is none of the model's.
        """
        rows = self._train.windows(windows, self._config.seq_len)
        vocab_size = self.model.config.vocab_size
        if int(rows.max()) >= vocab_size:
            row = int((rows >= vocab_size).any(dim=1).nonzero()[0])
            raise DataError(
                where=self._place(windows[row]),
                expected=f"token ids below the vocabulary's {vocab_size}",
                got=str(int(rows.max())),
                fix="Shards and tokenizer do not belong together, or the file is damaged: tokenize again.",
            )
        return rows

    def describe(self, step: int, micro_batch: int) -> str:
        """Where in the shards the rows of a micro-batch lie, for messages."""
        piece = self._order.micro_batches(step, self._config.loop.micro_batch_size)[micro_batch]
        return "; ".join(self._place(window) for window in piece)

    def _place(self, window: int) -> str:
        seq_len = self._config.seq_len
        file, offset = self._train.locate(window * seq_len)
        return f"{file}, tokens {offset} to {offset + seq_len}"

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


class _RowsOnDemand(Sequence[Rows]):
    """The micro-batches of one update; a process reads those of its share only."""

    def __init__(self, task: PretrainingTask, pieces: Sequence[Sequence[int]]) -> None:
        self._task, self._pieces = task, pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._task.read(piece) for piece in self._pieces[index]]
        return self._task.read(self._pieces[index])


def document_layout(
    tokens: Int64[Tensor, "rows seq"], bos_id: int
) -> tuple[Int64[Tensor, "rows seq"], Int64[Tensor, "rows seq"]]:
    """Which document each token of a row belongs to, and its place in it; <s> opens a document."""
    is_first = tokens == bos_id
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    starts = torch.where(is_first, places, 0).cummax(dim=1).values
    return is_first.cumsum(dim=1), places - starts
