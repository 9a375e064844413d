"""The tensors a configuration asks for, and the checks that every format shares."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.conversion.stream import BLOCK_BYTES, TensorInfo, cast, check_tensors, row_blocks, shapes
from puna.core.errors import CheckpointError
from puna.model.checkpoint import hf_name
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

HERE = Path("here")


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_shapes_are_those_of_the_model(n_kv: int, n_repeats: int, n_layers: int, tied: bool) -> None:
    config = ModelConfig(
        dim=n_kv * n_repeats * 6, n_layers=n_layers, n_heads=n_kv * n_repeats, n_kv_heads=n_kv,
        vocab_size=11, hidden_dim=7, tie_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = Transformer(config)
    assert shapes(config) == {hf_name(name): tuple(p.shape) for name, p in model.named_parameters()}


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


@given(st.integers(1, 50), st.integers(1, 7))
def test_blocks_cover_every_row_once_and_keep_heads_whole(n_groups: int, multiple: int) -> None:
    tensor = torch.arange(n_groups * multiple * 4).view(-1, 4)
    wide = tensor.expand(tensor.shape).repeat(1, BLOCK_BYTES // 320)  # about ten rows a block
    blocks = list(row_blocks(wide, multiple=multiple))
    assert torch.equal(torch.cat([block for _, block in blocks]), wide)
    assert all(first % multiple == 0 and len(block) % multiple == 0 for first, block in blocks)
    assert all(block.nbytes <= max(BLOCK_BYTES, multiple * wide[0].nbytes) for _, block in blocks)


def test_cast_refuses_what_no_training_can_have_meant() -> None:
    values = torch.tensor([1.0, 70_000.0])
    assert cast(values, "w", dtype=None, where=HERE) is values
    assert cast(values, "w", dtype=torch.bfloat16, where=HERE).dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match=r"w within the range of float16, got 7e\+04"):
        cast(values, "w", dtype=torch.float16, where=HERE)
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(CheckpointError, match="finite numbers in w"):
            cast(torch.tensor([1.0, bad]), "w", dtype=None, where=HERE)
