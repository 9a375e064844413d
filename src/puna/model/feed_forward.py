"""The SwiGLU feed-forward layer (§2.2; Shazeer 2020)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from puna.model.config import ModelConfig

__all__ = ["FeedForward"]


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        """Widen, gate, narrow."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
