import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from puna.inference.penalties import penalize
from puna.inference.sampling import SamplingConfig


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(3, 30, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 30, (3, 12), generator=torch.Generator().manual_seed(1))
    rows = tokens.numpy()
    ours = penalize(logits, list(rows[:, :5]), list(rows[:, 5:]), SamplingConfig(repetition_penalty=1.3))
    assert torch.equal(ours, RepetitionPenaltyLogitsProcessor(penalty=1.3)(tokens, logits.clone()))


def test_presence_penalty_counts_the_response_once() -> None:
    prompt, response = np.array([1, 2]), np.array([2, 3, 3])
    ours = penalize(torch.zeros(1, 5), [prompt], [response], SamplingConfig(presence_penalty=0.5))
    assert ours.tolist() == [[0.0, 0.0, -0.5, -0.5, 0.0]]


def test_the_logits_given_stay_as_they_are() -> None:
    logits = torch.ones(1, 3)
    penalize(
        logits, [np.array([0])], [np.array([1])], SamplingConfig(repetition_penalty=2, presence_penalty=1)
    )
    assert logits.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.0}, {"presence_penalty": 0.0}])
def test_neutral_settings_have_no_penalties(settings: dict[str, float]) -> None:
    assert not SamplingConfig(**settings).has_penalties
