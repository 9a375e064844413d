"""The tensors a configuration asks for, and the checks that every format shares."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import gguf_files
from puna.conversion.source import PreparedSource, TensorInfo, cast, check_tensors, shapes
from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig
from puna.model.hf_config import config_to_hf

HERE = Path("here")


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_shapes_are_those_of_transformers_own_model(
    n_kv: int, n_repeats: int, n_layers: int, tied: bool
) -> None:
    config = ModelConfig(
        dim=n_kv * n_repeats * 6, n_layers=n_layers, n_heads=n_kv * n_repeats, n_kv_heads=n_kv,
        vocab_size=11, hidden_dim=7, tie_embeddings=tied,
    )  # fmt: skip
    values = config_to_hf(config, architecture="LlamaForCausalLM", dtype=torch.float32)
    with torch.device("meta"):
        theirs = LlamaForCausalLM(LlamaConfig.from_dict(values))
    named = {name: tuple(weight.shape) for name, weight in theirs.named_parameters()}
    assert shapes(config) == named
    assert next(iter(shapes(config))) == "model.embed_tokens.weight"


def test_tensors_must_be_exactly_the_models(tiny: ModelConfig) -> None:
    whole = {name: TensorInfo(shape, torch.bfloat16) for name, shape in shapes(tiny).items()}
    shuffled = dict(reversed(whole.items()))
    assert list(check_tensors(tiny, shuffled, where=HERE)) == list(whole)
    norm = "model.norm.weight"
    without = {name: info for name, info in whole.items() if name != norm}
    for found, message in (
        (without, f"no {norm}"),
        (whole | {"model.extra": TensorInfo((1,), torch.float32)}, "also model.extra"),
        (whole | {norm: TensorInfo((33,), torch.float32)}, r"shape \(32,\).*got shape \(33,\)"),
        (whole | {norm: TensorInfo((32,), torch.int8)}, "torch.int8"),
    ):
        with pytest.raises(CheckpointError, match=message):
            check_tensors(tiny, found, where=HERE)


def test_cast_refuses_what_no_training_can_have_meant() -> None:
    values = torch.tensor([1.0, 70_000.0])
    assert cast(values, "w", dtype=torch.float32, where=HERE) is values
    assert cast(values, "w", dtype=torch.bfloat16, where=HERE).dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match=r"w within the range of float16, got 7e\+04"):
        cast(values, "w", dtype=torch.float16, where=HERE)
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(CheckpointError, match="finite numbers in w"):
            cast(torch.tensor([1.0, bad]), "w", dtype=torch.float32, where=HERE)


def test_a_prepared_source_says_what_it_delivers(tiny: ModelConfig) -> None:
    source = gguf_files.MemorySource(tiny, gguf_files.random_values(tiny, dtype=torch.bfloat16))
    n_reads: list[int] = []
    for dtype in (None, torch.float32):
        prepared = PreparedSource(source, dtype=dtype, on_read=lambda: n_reads.append(1))
        for name, info in prepared.tensors.items():
            tensor = prepared.read(name)
            assert info == TensorInfo(tuple(tensor.shape), tensor.dtype)
            assert tensor.dtype == (dtype or torch.bfloat16)
            assert torch.equal(tensor.bfloat16(), source.values[name])
    assert len(n_reads) == 2 * len(source.tensors)
