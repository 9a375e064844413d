"""Weights in 8 bits for generation: each output channel is integers of [-127, 127] times one scale.

Activations keep their dtype. The embedding and the norms stay as they are; `perplexity` says what it costs.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from puna.inference.logprobs import token_logprobs
from puna.model.transformer import Transformer

__all__ = ["Int8Projection", "perplexity", "quantize_rows"]


def quantize_rows(
    weight: Float[Tensor, "outer inner"],
) -> tuple[Int8[Tensor, "outer inner"], Float[Tensor, " outer"]]:
    """The nearest integers and their scales, max |row| / 127: symmetric, so that 0 stays 0. Source: common practice."""
    wide = weight.float()
    scales = wide.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (wide / scales[:, None]).round().to(torch.int8), scales


class Int8Projection(nn.Module):
    """Some linear layers of one input, in one product, from 8-bit weights; the output has the compute dtype."""

    weight: Tensor
    scales: Tensor

    def __init__(self, *weights: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        quantized = [quantize_rows(weight.detach()) for weight in weights]
        self.dtype = dtype
        self.register_buffer("weight", torch.cat([integers for integers, _ in quantized]), persistent=False)
        scales = torch.cat([scale for _, scale in quantized])
        self.register_buffer("scales", scales.to(dtype), persistent=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch outer"]:
        """x W^T with W = integers * scales; the CPU kernel widens the weights inside the product."""
        x = x.to(self.dtype)
        if x.device.type == "cpu" and self.dtype == torch.bfloat16:
            flat = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.weight, self.scales)
            return flat.view(*x.shape[:-1], -1)
        return F.linear(x, self.weight.to(self.dtype)) * self.scales


@torch.inference_mode()
def perplexity(model: Transformer, sequences: Sequence[Sequence[int]]) -> float:
    """exp of the mean negative log-prob of every token but each sequence's first."""
    total, count = 0.0, 0
    for sequence in sequences:
        logprobs = token_logprobs(model, torch.tensor([list(sequence)], device=model.norm.weight.device))
        total, count = total - float(logprobs.double().sum()), count + logprobs.numel()
    return math.exp(total / count)
