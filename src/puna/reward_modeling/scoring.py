"""Scores of comparisons and samples by a finished reward model, for the command line and for reading."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from puna.core.records import Comparison, Sample, read_records
from puna.inference import score_sequences
from puna.inference.reward_models import ended_sequence
from puna.inference.sampled_tokens import check_sampled_by
from puna.model import load_score_model
from puna.reward_modeling.accuracy import ScoredPair
from puna.reward_modeling.encoding import encode_pairs
from puna.reward_modeling.task import score_pairs
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["score_comparisons", "score_file", "score_samples"]


class SampleOrComparison(BaseModel):
    """Enough of a line to see whether it is a Comparison."""

    model_config = ConfigDict(extra="allow")

    chosen: object = None


def score_comparisons(
    reward_model: Path, comparisons: Sequence[Comparison], *, device: torch.device, max_batch_size: int = 128
) -> list[ScoredPair]:
    """Logits of both sides of each comparison, in order.

    Raises:
        ShapeError: a dialog is longer than the model's context.
    """
    model, tokenizer = load_score_model(reward_model, device=device).eval(), Tokenizer.load(reward_model)
    pairs, _ = encode_pairs(comparisons, tokenizer)
    return score_pairs(model, pairs, max_batch_size=max_batch_size)


def score_samples(
    reward_model: Path, samples: Sequence[Sample], *, device: torch.device, max_batch_size: int = 128
) -> list[float]:
    """Logits of each sample's response, in order: of the tokens that were sampled, as rejection sampling scores them.

    Raises:
        ShapeError: a dialog is longer than the model's context.
        DataError: the tokens are not those of this model's tokenizer.
    """
    model, tokenizer = load_score_model(reward_model, device=device).eval(), Tokenizer.load(reward_model)
    for sample in samples:
        check_sampled_by(tokenizer, sample.token_ids, sample.response, where=f"sample {sample.id}")
    sequences = [
        ended_sequence(
            render_prompt(sample.prompt, tokenizer),
            sample.token_ids,
            sample.finish_reason,
            eos_id=tokenizer.eos_id,
            max_tokens=model.trunk.config.max_seq_len,
        )
        for sample in samples
    ]
    return score_sequences(model, sequences, max_batch_size=max_batch_size)


def score_file(
    reward_model: Path, data: Path, *, device: torch.device, max_batch_size: int = 128
) -> list[float] | list[list[float]]:
    """One score for each Sample of a JSON Lines file, or [chosen, rejected] for each Comparison.

    Raises:
        DataError: the file is missing, or a line is neither as its first line is.
    """
    first = next(read_records(data, SampleOrComparison), None)
    if first is not None and first.chosen is not None:
        comparisons = list(read_records(data, Comparison))
        pairs = score_comparisons(reward_model, comparisons, device=device, max_batch_size=max_batch_size)
        return [[pair.chosen, pair.rejected] for pair in pairs]
    return score_samples(
        reward_model, list(read_records(data, Sample)), device=device, max_batch_size=max_batch_size
    )
