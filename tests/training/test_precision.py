import pytest
import torch
from torch import nn

from puna.training.precision import precision


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float8", torch.bfloat16)],
)
def test_products_have_the_precision_asked_for_and_weights_stay_float32(
    dtype: str, expected: torch.dtype
) -> None:
    layer = nn.Linear(4, 3)
    with precision(layer, dtype):
        assert layer(torch.ones(2, 4)).dtype == expected
    assert layer(torch.ones(2, 4)).dtype == layer.weight.dtype == torch.float32
