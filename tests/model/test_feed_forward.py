import torch

from puna.model.config import ModelConfig
from puna.model.feed_forward import FeedForward


def test_feed_forward_is_swiglu(tiny: ModelConfig) -> None:
    layer = FeedForward(tiny)
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    gate, up = x @ layer.w1.weight.T, x @ layer.w3.weight.T
    torch.testing.assert_close(layer(x), (gate * gate.sigmoid() * up) @ layer.w2.weight.T)
