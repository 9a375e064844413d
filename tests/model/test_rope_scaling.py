import math
from typing import get_args

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_configs import scalings
from puna.model.config import ModelConfig
from puna.model.hf_rope import rope_to_hf
from puna.model.rope import rotation
from puna.model.rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling, frequencies
from puna.model.transformer import Transformer

PLAIN = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)


def of(scaling: RopeScaling | None) -> torch.Tensor:
    return frequencies(scaling, head_dim=16, theta=10_000.0)


@given(scalings(), st.sampled_from([4, 16, 64]), st.sampled_from([100.0, 5e5]), st.integers(1, 200))
def test_angles_are_those_of_transformers(
    scaling: RopeScaling, head_dim: int, theta: float, n_tokens: int
) -> None:
    config = ModelConfig(
        dim=head_dim,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        vocab_size=5,
        hidden_dim=4,
        rope_theta=theta,
        rope_scaling=scaling,
        max_seq_len=128,
    )
    values = {"hidden_size": head_dim, "num_attention_heads": 1, "max_position_embeddings": 128}
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


def test_borders_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="above low_freq_factor"):
        Llama3Scaling(factor=8, low_freq_factor=4, high_freq_factor=4, original_max_seq_len=8)


ONE_OF_EACH = {
    "linear": LinearScaling(factor=1.5),
    "llama3": Llama3Scaling(factor=1.5, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8),
    "yarn": YarnScaling(factor=1.5, original_max_seq_len=8),
}


def test_one_of_each_is_every_scaling() -> None:
    """A scaling that is added later must join the test of packed documents below."""
    kinds = get_args(get_args(RopeScaling)[0])
    assert {type(scaling) for scaling in ONE_OF_EACH.values()} == set(kinds)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), n_filler=st.integers(0, 3))
@example(lengths=[9, 3], n_filler=0)
def test_packed_documents_equal_separate_ones(
    tiny: ModelConfig, name: str, lengths: list[int], n_filler: int
) -> None:
    """Documents on both sides of the trained context of 8 tokens, in one row: none changes another's angles.

    Dynamic NTK scaling, which the project had, scaled 9 and 3 tokens in one row by one length.
    """
    settings = {"rope_scaling": ONE_OF_EACH[name]}
    model = Transformer(ModelConfig.model_validate(tiny.model_dump() | settings), seed=1)
    source = torch.Generator().manual_seed(0)
    documents = [torch.randint(40, (1, length), generator=source) for length in lengths]
    ids = [i for i, length in enumerate(lengths) for _ in range(length)] + [-1] * n_filler
    filler = torch.zeros(1, n_filler, dtype=torch.long)
    positions = torch.cat([*(torch.arange(n) for n in lengths), filler[0]])
    with torch.no_grad():
        packed = model(
            torch.cat([*documents, filler], dim=1),
            positions=positions[None],
            document_ids=torch.tensor([ids]),
        )
        separate = torch.cat([model(document) for document in documents], dim=1)
    torch.testing.assert_close(packed[:, : sum(lengths)], separate, atol=1e-5, rtol=0)
