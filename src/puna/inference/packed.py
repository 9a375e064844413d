"""Weight matrices laid out the way oneDNN's bfloat16 products read them on a CPU.

The same sums in the same order as `F.linear`, bit for bit; one row reads the weights about 1.4 times as fast, because
they lie in the order in which they are needed.
"""

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn

__all__ = ["PackedProjection", "can_pack", "has_bfloat16"]


def has_bfloat16() -> bool:
    """Whether this processor has bfloat16 products that are worth using: oneDNN and its instructions."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_pack(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether products with this weight can read it in their own order."""
    return (weight.device.type, dtype) == ("cpu", torch.bfloat16) and has_bfloat16()


class PackedProjection(nn.Module):
    """Some linear layers of one input, in one bfloat16 product."""

    def __init__(self, *weights: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        joined = torch.cat([weight.detach().to(dtype) for weight in weights])
        self._packed = torch.ops.mkldnn._reorder_linear_weight(joined)
        """Opaque to everything but the product below; not a buffer, so that no state dict tries to read it."""

    def forward(self, x: Float[Tensor, "*batch dim"]) -> BFloat16[Tensor, "*batch outer"]:
        """x W^T."""
        return torch.ops.mkldnn._linear_pointwise(x.to(torch.bfloat16), self._packed, None, "none", [], "")
