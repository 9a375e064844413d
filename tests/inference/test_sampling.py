import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from puna.inference.sampling import NOISE_TOKENS, SamplingConfig, noise_chunk, nucleus, sample_tokens

PROBS = torch.tensor([[0.1, 0.5, 0.15, 0.25]])


def metas_nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """sample_top_p of Meta's generation.py, without its renormalization."""
    values, indices = probs.sort(dim=-1, descending=True)
    values[values.cumsum(-1) - values > top_p] = 0.0
    return torch.zeros_like(probs).scatter(-1, indices, values)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.3, [1]), (0.5, [1, 3]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (0.95, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_nucleus_by_hand(top_p: float, kept: list[int]) -> None:
    assert nucleus(PROBS, top_p).nonzero()[:, 1].tolist() == kept


@given(st.integers(0, 10**6), st.floats(0.05, 0.99), st.floats(0.1, 5.0))
def test_nucleus_is_metas(seed: int, top_p: float, scale: float) -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed)) * scale
    probs = logits.softmax(-1)
    torch.testing.assert_close(nucleus(probs, top_p), metas_nucleus(probs, top_p), atol=0, rtol=0)


def test_equal_probabilities_stay_together() -> None:
    assert nucleus(torch.full((1, 4), 0.25), 0.4).count_nonzero() == 4


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([0.3, 0.6, 1.0]))
def test_only_tokens_of_the_nucleus_are_drawn(noise: float, top_p: float) -> None:
    config = SamplingConfig(temperature=1.0, top_p=top_p)
    token = sample_tokens(PROBS.log(), torch.tensor([noise], dtype=torch.float64), config)
    assert nucleus(PROBS, top_p)[0, token.item()] > 0


def test_zero_probability_is_never_drawn_at_either_end() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(2, -1)
    noise = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert sample_tokens(logits, noise, SamplingConfig(temperature=1.0, top_p=1.0)).tolist() == [1, 1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.8)])
def test_frequencies_are_the_tempered_truncated_distribution(temperature: float, top_p: float) -> None:
    """20,000 draws, each frequency within 0.015: over four standard deviations, false alarms below 1 in 5,000."""
    n_draws = 20_000
    tempered = (PROBS.log() / temperature).softmax(-1)
    kept = metas_nucleus(tempered, top_p)
    noise = torch.from_numpy(np.random.Generator(np.random.Philox(key=5)).random(n_draws))
    config = SamplingConfig(temperature=temperature, top_p=top_p)
    tokens = sample_tokens(PROBS.log().expand(n_draws, -1), noise, config)
    frequencies = tokens.bincount(minlength=4) / n_draws
    torch.testing.assert_close(frequencies, (kept / kept.sum())[0], atol=0.015, rtol=0)


def test_temperature_zero_is_the_likeliest() -> None:
    assert sample_tokens(PROBS.log(), torch.tensor([0.999]), SamplingConfig(temperature=0)).tolist() == [1]


@pytest.mark.parametrize("seed", [0, 7, 7 + 2**32, 2**63 - 1])
def test_chunks_of_noise_are_one_stream_of_the_whole_seed(seed: int) -> None:
    stream = np.random.Generator(np.random.Philox(key=seed)).random(5 * NOISE_TOKENS)
    for n_drawn in range(4 * NOISE_TOKENS):
        chunk = noise_chunk(seed, n_drawn)
        assert len(chunk) == NOISE_TOKENS
        assert chunk[n_drawn % NOISE_TOKENS] == stream[n_drawn]
    assert noise_chunk(7, 0)[0] != noise_chunk(7 + 2**32, 0)[0]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig.model_validate(wrong)
