"""Learning to order two responses (§3.2.2, Eq. 2), and for the safety model to tell safe from unsafe."""

from collections.abc import Sequence

import torch
from torch import Tensor

from puna.inference import score_sequences
from puna.model import ScoreModel
from puna.reward_modeling.accuracy import ScoredPair, scored
from puna.reward_modeling.encoding import EncodedPair, PairBatch, batch_pairs
from puna.reward_modeling.margins import MarginScale, margins
from puna.reward_modeling.ranking_loss import ranking_loss, safety_auxiliary_loss
from puna.training import LossSum, ShuffledOrder

__all__ = ["RankingTask", "score_pairs"]


class RankingTask:
    """The pairs of one reward model, for the training loop; a target is a pair."""

    def __init__(
        self,
        model: ScoreModel,
        *,
        train: Sequence[EncodedPair],
        test: Sequence[EncodedPair],
        order: ShuffledOrder,
        micro_batch_size: int,
        test_batch_size: int,
        margin: MarginScale,
        safety_loss_weight: float,
    ) -> None:
        self.model = model
        self._train = train
        self._test = test
        self._order = order
        self._micro_batch_size = micro_batch_size
        self._test_batch_size = test_batch_size
        self._margin = margin
        self._safety_loss_weight = safety_loss_weight

    def micro_batches(self, step: int) -> Sequence[PairBatch]:
        """The pairs of one update."""
        pieces = self._order.micro_batches(step, self._micro_batch_size)
        return [batch_pairs([self._train[i] for i in piece], margin=self._margin) for piece in pieces]

    def loss(self, batch: PairBatch) -> LossSum:
        """Ranking loss summed over pairs, plus the weighted safety loss, which counts each response as half a pair."""
        batch = batch.to(self.model.score.weight.device)
        scores = batch.scores(self.model)
        chosen, rejected = scores.chunk(2)
        ranking = ranking_loss(chosen, rejected, margin=batch.margin) * len(batch)
        metrics: dict[str, Tensor | float] = {
            "ranking_loss": ranking.detach(),
            "accuracy": (chosen > rejected).sum(),
            "score_gap": (chosen - rejected).detach().sum(),
        }
        total = ranking
        n_labelled = int(batch.is_labelled.sum())
        if self._safety_loss_weight and n_labelled:
            labelled = batch.is_labelled
            safety = safety_auxiliary_loss(scores[labelled], batch.is_safe[labelled]) * n_labelled / 2
            metrics["safety_loss"] = safety.detach()
            total = ranking + self._safety_loss_weight * safety
        return LossSum(total, len(batch), metrics=metrics, n_tokens=batch.n_tokens)

    def evaluate(self) -> dict[str, float]:
        """Accuracy and ranking loss on the held-out pairs of the role's own guideline; nothing where there are none."""
        if not self._test:
            return {}
        pairs = score_pairs(self.model, self._test, max_batch_size=self._test_batch_size)
        chosen, rejected = torch.tensor([[pair.chosen, pair.rejected] for pair in pairs]).T
        margin = margins([pair.comparison.rating for pair in self._test], self._margin)
        loss = ranking_loss(chosen, rejected, margin=margin)
        return {"loss": loss.item(), "accuracy": sum(pair.is_correct for pair in pairs) / len(pairs)}


def score_pairs(model: ScoreModel, pairs: Sequence[EncodedPair], *, max_batch_size: int) -> list[ScoredPair]:
    """Logits of both sides of each pair, in order."""
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    scores = score_sequences(model, sides, max_batch_size=max_batch_size)
    return [
        scored(pair.comparison, chosen, rejected)
        for pair, chosen, rejected in zip(pairs, scores[::2], scores[1::2], strict=True)
    ]
