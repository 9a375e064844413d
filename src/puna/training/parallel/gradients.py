"""Gradients in shards: their norm is exact, and one division makes them a mean."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["average_and_clip_shards", "n_copies"]


def average_and_clip_shards(
    parameters: Iterable[nn.Parameter], *, n_targets: int, max_norm: float, world_size: int
) -> Float[Tensor, ""]:
    """What `average_and_clip_gradients` does, for gradients that lie in pieces on several processes.

    A piece that k processes hold counts 1/k on each, so one sum over the world gives the squared norm whatever
    the layout.

    Returns:
        Norm of the mean gradient before clipping, the same on every process.
    """
    by_copies: dict[int, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_copies.setdefault(n_copies(parameter, world_size), []).append(_piece(parameter))
    gradients = [gradient for group in by_copies.values() for gradient in group]
    squares = [
        torch.stack(torch._foreach_norm(group)).double().square().sum() / copies
        for copies, group in by_copies.items()
    ]
    total = torch.stack(squares).sum()
    dist.all_reduce(total)
    norm = total.sqrt() / n_targets
    scale = (torch.clamp(max_norm / (norm + 1e-6), max=1.0) / n_targets).to(gradients[0].dtype)
    torch._foreach_mul_(gradients, scale)
    return norm.float()


def _piece(parameter: nn.Parameter) -> Tensor:
    """This process's part of a gradient; an embedding's comes as a sum over processes that is still to be made."""
    gradient = parameter.grad
    assert gradient is not None
    if not isinstance(parameter, DTensor):
        return gradient
    assert isinstance(gradient, DTensor)
    if gradient.placements != parameter.placements:
        parameter.grad = gradient = gradient.redistribute(placements=parameter.placements)
    return gradient.to_local()


def n_copies(parameter: Tensor, world_size: int) -> int:
    """How many processes hold the same piece of a parameter."""
    if not isinstance(parameter, DTensor):
        return world_size
    n_pieces = 1
    for axis, placement in enumerate(parameter.placements):
        if not placement.is_replicate():
            n_pieces *= parameter.device_mesh.size(axis)
    return world_size // n_pieces
