"""Products of a block in 8-bit floating point, scaled by each tensor's largest number (Micikevicius et al. 2022).

Activations and weights have 3 bits of mantissa (e4m3), gradients 2 bits and a wider range (e5m2). Sums are made in
float32 by the hardware, results rounded to bfloat16. Weights, norms, attention and the loss stay as they are.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from puna.core.errors import ConfigError
from puna.model.transformer import Transformer

__all__ = ["MIN_DIM", "check_float8", "float8_linear"]

MIN_DIM = 4096
"""Width of the 7B model; below it rounding costs more time than the products save. Our choice."""


def check_float8(model: nn.Module) -> None:
    """Refuse where 8-bit products are missing or would not pay.

    Raises:
        ConfigError: not a GPU of compute capability 8.9 or newer, a narrow model, or widths that are no multiple of 16.
    """
    device = next(model.parameters()).device
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        raise _refusal("a GPU with 8-bit products (Ada, Hopper or newer)", f"a model on {device}")
    configs = [module.config for module in model.modules() if isinstance(module, Transformer)]
    for config in configs:
        if config.dim < MIN_DIM:
            raise _refusal(f"a model at least {MIN_DIM} wide (7B)", f"dim {config.dim}")
        if any(n % 16 for n in (config.dim, config.q_dim, config.kv_dim, config.hidden_dim)):
            raise _refusal(
                "widths that are multiples of 16", f"{config.dim}, {config.kv_dim}, {config.hidden_dim}"
            )


def _refusal(expected: str, got: str) -> ConfigError:
    return ConfigError(where="dtype = float8", expected=expected, got=got, fix='Set dtype = "bfloat16".')


def float8_linear(
    x: Float[Tensor, "*batch dim"], weight: Float[Tensor, "outer dim"]
) -> Float[Tensor, "*batch outer"]:
    """x W^T in bfloat16, from 8-bit roundings of both; the gradients' products are 8-bit too.

    Args:
        x: A number of rows that is a multiple of 16, as all widths are.
    """
    return _Float8Linear.apply(x.flatten(0, -2).bfloat16(), weight).unflatten(0, x.shape[:-1])


class _Float8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, torch.float8_e4m3fn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (of_out,) = gradients
        of_x = _product(of_out, weight.t(), torch.float8_e5m2)
        of_weight = _product(of_out.t(), x.t(), torch.float8_e5m2)
        return of_x, of_weight.to(weight.dtype)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a b^T with a rounded to `dtype` and b to e4m3; both are laid out by rows first, as the hardware wants them."""
    (low_a, scale_a), (low_b, scale_b) = _rounded(a, dtype), _rounded(b, torch.float8_e4m3fn)
    return torch._scaled_mm(low_a, low_b.t(), scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16)


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Numbers over their scale, so that the largest is the dtype's largest, and that scale."""
    scale = x.abs().amax().float().clamp(min=1e-12) / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype).contiguous(), scale
