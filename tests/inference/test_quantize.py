import pytest
import torch

from puna.inference.engine import Engine, TextTokenizer
from puna.inference.fused import FusedTransformer
from puna.inference.quantize import Int8Projection, perplexity, quantize_rows
from puna.inference.sampling import SamplingConfig
from puna.model.transformer import Transformer


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_each_row_is_off_by_half_a_step_at_most() -> None:
    w = weight(20, 33) * torch.arange(1, 21)[:, None]
    integers, scales = quantize_rows(w)
    assert ((integers * scales[:, None] - w).abs() <= scales[:, None] / 2 * 1.0001).all()
    assert (integers.abs().amax(dim=1) == 127).all()


def test_a_row_of_zeros_stays_zero() -> None:
    integers, scales = quantize_rows(torch.zeros(2, 4))
    assert (integers * scales[:, None]).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_widened_weights(dtype: torch.dtype) -> None:
    first, second, x = weight(48, 64), weight(16, 64), weight(5, 1, 64).to(dtype)
    layer = Int8Projection(first, second, dtype=dtype)
    integers, scales = quantize_rows(torch.cat((first, second)))
    expected = x.float() @ (integers * scales[:, None]).T
    torch.testing.assert_close(layer(x).float(), expected, atol=0.05, rtol=0.02)
    assert layer(x).dtype == dtype


def test_the_engine_generates_from_them_and_perplexity_tells_the_cost(
    model: Transformer, tokenizer: TextTokenizer
) -> None:
    text = [[1 + (7 * i + j) % 38 for j in range(40)] for i in range(4)]
    small = FusedTransformer(model, dtype=torch.float32, has_int8_weights=True)
    assert 0 < abs(perplexity(small, text) / perplexity(model, text) - 1) < 0.02
    sampling = SamplingConfig(temperature=0, max_new_tokens=8)
    engine = Engine(model, tokenizer, has_int8_weights=True)
    [found] = engine.generate([text[0][:5]], sampling, seeds=[0])
    row = torch.tensor([[*text[0][:5], *found.token_ids]])
    assert found.token_ids == small(row)[0, 4:-1].argmax(-1).tolist()
