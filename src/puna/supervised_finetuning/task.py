"""Learning answers from packed rows of dialogs (§3.1)."""

import math
from collections.abc import Sequence

from puna.model.transformer import Transformer
from puna.training.losses import next_token_loss
from puna.training.order import ShuffledOrder
from puna.training.packing import PackedRows
from puna.training.task import LossSum

__all__ = ["FinetuningTask"]


class FinetuningTask:
    """Autoregressive loss on answer tokens; dialogs that share a row do not see one another."""

    def __init__(
        self,
        model: Transformer,
        *,
        train: PackedRows,
        validation: PackedRows,
        order: ShuffledOrder,
        micro_batch_size: int,
    ) -> None:
        self.model = model
        self._train = train
        self._validation = validation
        self._order = order
        self._micro_batch_size = micro_batch_size

    def micro_batches(self, step: int) -> Sequence[PackedRows]:
        """The rows of one update."""
        pieces = self._order.micro_batches(step, self._micro_batch_size)
        return [self._train.select(piece) for piece in pieces]

    def loss(self, batch: PackedRows) -> LossSum:
        """Sum of -log p over the answer tokens of the rows."""
        rows = batch.to(self.model.norm.weight.device)
        hidden = self.model.hidden(rows.tokens, positions=rows.positions, document_ids=rows.document_ids)
        nats, n_targets = next_token_loss(self.model, hidden, rows.targets, rows.target_mask)
        return LossSum(nats, n_targets, n_tokens=rows.tokens.numel())

    def evaluate(self) -> dict[str, float]:
        """Held-out loss in nats per answer token, and perplexity; nothing where nothing is held out."""
        size, n_rows = self._micro_batch_size, len(self._validation)
        batches = [range(first, min(first + size, n_rows)) for first in range(0, n_rows, size)]
        losses = [self.loss(self._validation.select(batch)) for batch in batches]
        if not losses:
            return {}
        mean = sum(loss.sum.item() for loss in losses) / sum(loss.n_targets for loss in losses)
        return {"loss": mean, "perplexity": math.exp(mean)}
