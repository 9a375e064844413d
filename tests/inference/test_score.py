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


@st.composite
def families(draw: st.DrawFn) -> list[list[int]]:
    """Answers to a few prompts, some of them long enough to be read once."""
    tokens = st.integers(0, 39)
    sequences = []
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(tokens, min_size=1, max_size=30))
        answers = draw(st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=5))
        sequences += [prompt + answer for answer in answers]
    return sequences


@given(families(), st.integers(1, 9))
def test_what_neighbours_share_is_read_once_and_the_scores_are_those_of_each_alone(
    score_model: ScoreModel, sequences: list[list[int]], max_batch_size: int
) -> None:
    scores = score_sequences(score_model, sequences, max_batch_size=max_batch_size)
    with torch.no_grad():
        alone = [score_model(torch.tensor([sequence]))[0, -1].item() for sequence in sequences]
    assert scores == pytest.approx(alone, abs=1e-5)


def test_the_prompt_of_many_answers_is_read_once(score_model: ScoreModel) -> None:
    n_read = []
    hook = score_model.trunk.tok_embeddings.register_forward_hook(
        lambda module, inputs, output: n_read.append(inputs[0].numel())
    )
    prompts = [[number] * 40 for number in (1, 2)]
    score_sequences(score_model, [[*prompt, answer, 3] for prompt in prompts for answer in range(10, 15)])
    hook.remove()
    assert sum(n_read) == 2 * 40 + 2 * 5 * 2


def test_sequences_without_tokens_or_beyond_the_context_are_refused(score_model: ScoreModel) -> None:
    for sequence in ([], [1] * 65):
        with pytest.raises(ShapeError, match="sequence 1 to score: expected 1 to 64 tokens"):
            score_sequences(score_model, [[1], sequence])
