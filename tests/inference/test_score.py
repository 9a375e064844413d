import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import ShapeError
from puna.inference.score import score_sequences
from puna.model.config import ModelConfig
from puna.model.heads import ScoreModel
from puna.model.transformer import Transformer


@pytest.fixture(scope="module")
def score_model(tiny: ModelConfig) -> ScoreModel:
    return ScoreModel(Transformer(tiny, seed=1))


@given(st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=12), max_size=6), st.integers(1, 4))
def test_each_score_is_that_of_the_sequence_alone(
    score_model: ScoreModel, sequences: list[list[int]], max_batch_size: int
) -> None:
    scores = score_sequences(score_model, sequences, max_batch_size=max_batch_size)
    alone = [score_model(torch.tensor([sequence]))[0, -1].item() for sequence in sequences]
    assert scores == pytest.approx(alone, abs=1e-5)


def test_sequences_without_tokens_or_beyond_the_context_are_refused(score_model: ScoreModel) -> None:
    for sequence in ([], [1] * 65):
        with pytest.raises(ShapeError, match="sequence 1 to score: expected 1 to 64 tokens"):
            score_sequences(score_model, [[1], sequence])
