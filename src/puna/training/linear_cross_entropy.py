"""Cross-entropy of a vocabulary projection, a few positions at a time: the full logits never exist.

Gradients are made in the forward pass, while a chunk's logits are at hand, and wait for the backward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["IGNORED", "CrossEntropyKernel", "cross_entropy_kernel", "linear_cross_entropy"]

CrossEntropyKernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of hidden states, weight and targets, as linear_cross_entropy below."""

IGNORED = -100
"""The target of a position that counts for nothing."""

CHUNK_ROWS = {"cpu": 256}
"""Positions whose logits exist at once: on a CPU they should stay in its caches."""
CHUNK_ROWS_ELSEWHERE = 2048

_other_kernel: ContextVar[CrossEntropyKernel | None] = ContextVar("other_kernel", default=None)


@contextmanager
def cross_entropy_kernel(kernel: CrossEntropyKernel) -> Iterator[None]:
    """Within it, losses that are trained on are made by another kernel."""
    token = _other_kernel.set(kernel)
    try:
        yield
    finally:
        _other_kernel.reset(token)


def linear_cross_entropy(
    hidden: Float[Tensor, "row dim"], weight: Float[Tensor, "vocab dim"], targets: Int[Tensor, " row"]
) -> Float[Tensor, ""]:
    """Sum of -log softmax(hidden weight^T)[target] over the rows whose target is not IGNORED.

    Products are made in autocast's dtype where it is on; the softmax in float32, or the input's dtype where wider.

    Returns:
        Nats in float32 (in the input's dtype where wider).
    """
    device = hidden.device.type
    is_low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_low else torch.promote_types(hidden.dtype, weight.dtype)
    wants = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if wants and (other := _other_kernel.get()) is not None:
        return other(hidden, weight, targets)
    if wants:
        return _LinearCrossEntropy.apply(hidden, weight, targets, dtype)
    with torch.autocast(device, enabled=False):
        return _chunks(hidden, weight, targets, dtype, None, None)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        of_hidden = torch.empty_like(hidden, dtype=dtype) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden.device.type, enabled=False):
            nats = _chunks(hidden, weight, targets, dtype, of_hidden, of_weight)
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtype = hidden.dtype
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight = ctx.saved_tensors
        scaled_hidden = None if of_hidden is None else of_hidden.to(ctx.dtype) * gradients[0]
        return scaled_hidden, None if of_weight is None else of_weight * gradients[0], None, None


def _chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    of_hidden: Tensor | None,
    of_weight: Tensor | None,
) -> Tensor:
    """The loss; the gradients, where they are wanted, are written into of_hidden and added to of_weight."""
    low, columns = hidden.to(dtype), weight.to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    nats = torch.zeros((), dtype=wide, device=hidden.device)
    n_rows = CHUNK_ROWS.get(hidden.device.type, CHUNK_ROWS_ELSEWHERE)
    for first in range(0, len(low), n_rows):
        rows, target = low[first : first + n_rows], targets[first : first + n_rows, None]
        counts = (target != IGNORED).to(wide)
        target = target.clamp(min=0)
        logits = (rows @ columns.t()).to(wide)
        highest, at_target = logits.amax(1), logits.gather(1, target).squeeze(1)
        probs = torch.softmax(logits, dim=1, out=logits)
        # log-sum-exp = highest logit - log(its probability), which is never small
        nats += ((highest - probs.amax(1).log_() - at_target) * counts.squeeze(1)).sum()
        if of_hidden is None and of_weight is None:
            continue
        of_logits = probs.scatter_add_(1, target, -torch.ones_like(counts)).mul_(counts).to(dtype)
        if of_hidden is not None:
            torch.mm(of_logits, columns, out=of_hidden[first : first + n_rows])
        if of_weight is not None:
            of_weight += of_logits.t() @ rows
    return nats
