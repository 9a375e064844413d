import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_configs import scalings
from puna.model.config import ModelConfig
from puna.model.hf_rope import rope_to_hf
from puna.model.rope import rotation
from puna.model.rope_scaling import (
    DynamicNTKScaling,
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
    frequencies,
)

PLAIN = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)


def of(scaling: RopeScaling | None, *, n_tokens: int = 1) -> torch.Tensor:
    lengths = torch.tensor([[n_tokens]])
    return frequencies(scaling, head_dim=16, theta=10_000.0, n_tokens=lengths).flatten()


@given(scalings(), st.sampled_from([4, 16, 64]), st.sampled_from([100.0, 5e5]), st.integers(1, 200))
def test_angles_are_those_of_transformers(
    scaling: RopeScaling, head_dim: int, theta: float, n_tokens: int
) -> None:
    is_dynamic = isinstance(scaling, DynamicNTKScaling)
    config = ModelConfig(
        dim=head_dim,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        vocab_size=5,
        hidden_dim=4,
        rope_theta=theta,
        rope_scaling=scaling,
        max_seq_len=scaling.max_seq_len if is_dynamic else 128,
    )
    n_positions = scaling.original_max_seq_len if is_dynamic else 128
    values = {"hidden_size": head_dim, "num_attention_heads": 1, "max_position_embeddings": n_positions}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**values, **rope_to_hf(config)))
    positions = torch.arange(n_tokens)[None]
    expected = theirs(torch.zeros(1), positions)
    ours = rotation(positions, head_dim=head_dim, theta=theta, scaling=scaling)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found[:, :, 0], wanted[..., : head_dim // 2], atol=1e-4, rtol=0)


def test_nothing_is_scaled_without_a_scaling() -> None:
    torch.testing.assert_close(of(None), PLAIN)


def test_linear_divides_every_frequency() -> None:
    torch.testing.assert_close(of(LinearScaling(factor=4)), PLAIN / 4)


def test_dynamic_is_plain_up_to_the_trained_context_and_then_slows_the_slowest_most() -> None:
    scaling = DynamicNTKScaling(factor=2.0, original_max_seq_len=100)
    assert torch.equal(of(scaling, n_tokens=100), of(None))
    longer = of(scaling, n_tokens=200)
    grown = 10_000.0 * 3.0 ** (16 / 14)  # factor * 200 / 100 - (factor - 1)
    torch.testing.assert_close(longer, grown ** (-torch.arange(0, 16, 2) / 16))
    assert longer[0] == PLAIN[0]
    assert longer[-1].item() == pytest.approx(PLAIN[-1].item() / 3)


def test_a_packed_document_has_its_own_length() -> None:
    scaling = DynamicNTKScaling(factor=2.0, original_max_seq_len=3)
    positions = torch.tensor([[0, 1, 0, 1, 2, 3, 4]])
    ids = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    cos, _ = rotation(positions, head_dim=16, theta=1e4, scaling=scaling, document_ids=ids)
    plain, _ = rotation(positions, head_dim=16, theta=1e4)
    alone, _ = rotation(torch.arange(5)[None], head_dim=16, theta=1e4, scaling=scaling)
    assert torch.equal(cos[:, :2], plain[:, :2])
    torch.testing.assert_close(cos[:, 2:], alone)


def test_llama3_keeps_fast_frequencies_and_divides_slow_ones() -> None:
    scaling = Llama3Scaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=400)
    found, turns = of(scaling), PLAIN * 400 / (2 * math.pi)
    torch.testing.assert_close(found[turns > 4], PLAIN[turns > 4])
    torch.testing.assert_close(found[turns < 1], PLAIN[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((found < PLAIN) & (found > PLAIN / 8))[between].all()


def test_yarn_softens_the_softmax_with_the_factor() -> None:
    assert YarnScaling(factor=1.0, original_max_seq_len=8).scale == 1
    assert YarnScaling(factor=math.e, original_max_seq_len=8).scale == pytest.approx(1.1)
    assert YarnScaling(factor=math.e, original_max_seq_len=8, attention_factor=0.7).scale == 0.7
    both = YarnScaling(factor=math.e, original_max_seq_len=8, mscale=2.0, mscale_all_dim=1.0)
    assert both.scale == pytest.approx(1.2 / 1.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"custom_head_dim": 2, "max_seq_len": 128}, "wider than 2"),
        ({"max_seq_len": 64}, "scaled context, 128"),
    ],
)
def test_scalings_that_do_not_fit_the_model_are_refused(
    tiny: ModelConfig, changes: dict[str, int], message: str
) -> None:
    scaling = DynamicNTKScaling(factor=2, original_max_seq_len=64)
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate(tiny.model_dump() | {"rope_scaling": scaling} | changes)
    with pytest.raises(ValueError, match="above low_freq_factor"):
        Llama3Scaling(factor=8, low_freq_factor=4, high_freq_factor=4, original_max_seq_len=8)
