"""The layers that generate are the trained ones in fewer operations: the same bits where they promise it."""

import pytest
import torch
from torch.nn import functional as F

from puna.inference.fused import FusedTransformer, turn, whole_angles
from puna.inference.packed import PackedProjection, has_bfloat16
from puna.inference.runner import fill_rows
from puna.model.rope import rotate, rotation
from puna.model.transformer import Transformer

packs = pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16 products")


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_by_whole_angles_is_rotating_to_the_last_bit(dtype: torch.dtype) -> None:
    x = drawn(3, 5, 4, 16).to(dtype)
    angles = rotation(torch.tensor([[0, 1, 2, 70, 4000]]), head_dim=16, theta=10_000)
    assert torch.equal(turn(x, whole_angles(angles)), rotate(x, angles))


@packs
@pytest.mark.parametrize(("inner", "outer"), [(32, 40), (76, 64), (576, 192), (1536, 64)])
def test_packed_weights_give_the_bits_of_a_plain_product_in_every_row(inner: int, outer: int) -> None:
    weight, x = drawn(outer, inner), drawn(40, inner).bfloat16()
    whole = F.linear(x, weight.bfloat16())
    layer = PackedProjection(weight[: outer // 2], weight[outer // 2 :], dtype=torch.bfloat16)
    for n_rows in (2, 3, 8, 16, 40):
        assert torch.equal(layer(x[:n_rows]), whole[:n_rows])
    assert torch.equal(layer(x[:6].view(2, 3, inner)), whole[:6].view(2, 3, outer))


@packs
@pytest.mark.parametrize("inner", [1024, 1536, 4096])
def test_a_step_has_as_many_rows_as_its_longest_sum_needs(inner: int) -> None:
    """A single row of a long bfloat16 sum comes out otherwise than among others: such steps get a second row.

    At 1,536, between the two limits that the engine had before and has now, a lone response of a SmolLM2 could differ
    from the same response in a crowd.
    """
    x = drawn(64, inner).bfloat16()
    for outer in (64, 960, 1536):
        layer = PackedProjection(drawn(outer, inner), dtype=torch.bfloat16)
        whole = layer(x)
        n_rows = fill_rows(1, torch.bfloat16, widest=inner)
        for row in (0, 13, 50):
            assert torch.equal(layer(x[row : row + n_rows])[0], whole[row])


def test_the_fused_model_is_the_trained_one(model: Transformer) -> None:
    tokens = torch.arange(1, 37).view(2, 18)
    fused = FusedTransformer(model, dtype=torch.float32)
    torch.testing.assert_close(fused(tokens), model(tokens), atol=1e-5, rtol=1e-5)
    narrow = FusedTransformer(model, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        difference = narrow(tokens) - model(tokens)
    assert difference.abs().max() < 0.05 * model(tokens).std()
