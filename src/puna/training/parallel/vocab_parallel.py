"""Next-token loss where each process holds a part of the vocabulary (Shoeybi et al. 2019, §3): logits never meet."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["vocab_parallel_loss"]

IGNORED = -100


def vocab_parallel_loss(
    hidden: Float[Tensor, "row dim"], weight: DTensor, targets: Int[Tensor, " row"]
) -> Float[Tensor, ""]:
    """Sum of -log softmax(hidden weight^T)[target], in float32; a target of -100 counts for nothing.

    Args:
        weight: Cut by rows over one mesh axis into equal parts.
    """
    mesh = weight.device_mesh
    local = weight.to_local()
    first = mesh.get_local_rank() * local.shape[0]
    nats: Tensor = _VocabParallelLoss.apply(hidden, local, targets, first, mesh.get_group())
    return nats


class _VocabParallelLoss(torch.autograd.Function):
    """log sum exp needs a maximum and a sum over all parts; the target's logit lies in one of them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup
    ) -> Tensor:
        dtype = (
            torch.get_autocast_dtype(hidden.device.type)
            if torch.is_autocast_enabled(hidden.device.type)
            else None
        )
        wide, cut = (hidden, weight) if dtype is None else (hidden.to(dtype), weight.to(dtype))
        logits = (wide @ cut.T).float()  # (row, vocab / tp)
        largest = logits.max(dim=1, keepdim=True).values
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        logits.sub_(largest)
        probs = logits.exp()
        is_here = (targets >= first) & (targets < first + weight.shape[0])
        column = (targets - first).clamp(0, weight.shape[0] - 1)[:, None]
        chosen = torch.where(is_here[:, None], logits.gather(1, column), 0.0)
        both = torch.cat([probs.sum(dim=1, keepdim=True), chosen], dim=1)
        dist.all_reduce(both, group=group)
        total, target_logit = both[:, :1], both[:, 1:]
        counts = (targets != IGNORED)[:, None]
        probs.div_(total).mul_(counts)
        probs.scatter_add_(1, column, -(is_here[:, None] & counts).to(probs.dtype))
        ctx.save_for_backward(wide, cut, probs)
        ctx.group, ctx.dtypes = group, (hidden.dtype, weight.dtype)
        return ((total.log() - target_logit) * counts).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wide, cut, probs = ctx.saved_tensors
        of_logits = (probs * gradients[0]).to(cut.dtype)
        of_hidden = (of_logits @ cut).float()
        dist.all_reduce(of_hidden, group=ctx.group)
        return of_hidden.to(ctx.dtypes[0]), (of_logits.T @ wide).to(ctx.dtypes[1]), None, None, None
