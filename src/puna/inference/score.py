"""Scores of whole sequences by a reward model (§3.2.2): the scalar at the last token."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from puna.core.errors import ShapeError
from puna.model.heads import ScoreModel

__all__ = ["score_sequences"]


@torch.inference_mode()
def score_sequences(
    score_model: ScoreModel, sequences: Sequence[Sequence[int]], *, max_batch_size: int = 128
) -> list[float]:
    """The score of each sequence, in logits, in the order given.

    Sequences of like length are scored together, padded on the right, where causality makes padding harmless.

    Raises:
        ShapeError: a sequence is empty or longer than the context.
    """
    context = score_model.trunk.config.max_seq_len
    for index, sequence in enumerate(sequences):
        if not 0 < len(sequence) <= context:
            raise ShapeError(
                where=f"sequence {index} to score",
                expected=f"1 to {context} tokens (the model's context)",
                got=f"{len(sequence)}",
                fix="Shorten the dialog.",
            )
    device = score_model.score.weight.device
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    scores = [0.0] * len(sequences)
    for start in range(0, len(order), max_batch_size):
        batch = order[start : start + max_batch_size]
        tokens = pad_sequence([torch.tensor(sequences[index]) for index in batch], batch_first=True)
        last = torch.tensor([len(sequences[index]) - 1 for index in batch], device=device)
        values = score_model(tokens.to(device)).gather(1, last[:, None]).squeeze(1)
        for index, value in zip(batch, values.tolist(), strict=True):
            scores[index] = value
    return scores
