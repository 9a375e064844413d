"""A model in pieces from its first moment: made without memory, cut, and filled piece by piece.

Order: tensor parallelism cuts matrices, FSDP2 (`fully_shard`) cuts what is left over the data-parallel processes, and
only then is memory taken. The weights are those that one process draws from the same seed.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from puna.model.config import ModelConfig
from puna.model.init import initial_weights
from puna.model.transformer import Transformer
from puna.training.parallel.tensor_parallel import cut_matrices
from puna.training.parallel.torchrun import TorchrunRanks

__all__ = ["fill", "make_sharded", "shard"]


def make_sharded(
    config: ModelConfig,
    ranks: TorchrunRanks,
    *,
    seed: int,
    compute_dtype: torch.dtype = torch.float32,
    is_blank: bool = False,
    before_sharding: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """This process's piece of a new model.

    Args:
        compute_dtype: Of gathered weights and matrix products; pieces, moments and reductions stay float32.
        is_blank: Leave the numbers to a checkpoint that is loaded next: drawing 70B takes minutes.
        before_sharding: Such as activation checkpointing or compiling, a block at a time.
    """
    with torch.device("meta"):
        model = Transformer(config)
    if ranks.layout.tp > 1:
        cut_matrices(model, ranks.mesh["tp"])
    if before_sharding is not None:
        before_sharding(model)
    if ranks.n_shares > 1:
        shard(model, ranks, compute_dtype=compute_dtype)
    model.to_empty(device=ranks.device)
    if not is_blank:
        fill(model, seed=seed)
    return model


def shard(model: Transformer, ranks: TorchrunRanks, *, compute_dtype: torch.dtype) -> None:
    """Cut a model over the data-parallel axes, a unit each for the embeddings, every block and the head.

    The last block is not resharded after its forward pass, for its backward pass comes next. Embeddings and head are
    gathered in float32: the residual stream is then what one process has under autocast, and the head's gradient,
    a sum over chunks of positions, is added up in float32.
    The head's weight is used by the loss, outside any module call: the end of `hidden` gathers it, and the end of the
    backward pass gives it back.
    """
    mesh = ranks.mesh["dp_replicate", "dp_shard"] if ranks.layout.dp_replicate > 1 else ranks.mesh["dp_shard"]
    in_blocks = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    in_stream = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    has_head = not model.config.tie_embeddings
    if has_head:
        fully_shard(model.tok_embeddings, mesh=mesh, mp_policy=in_stream)
        fully_shard(model.output, mesh=mesh, mp_policy=in_stream, reshard_after_forward=False)
    for layer in model.layers:
        is_last = layer is model.layers[-1]
        fully_shard(layer, mesh=mesh, mp_policy=in_blocks, reshard_after_forward=not is_last)
    fully_shard(model, mesh=mesh, mp_policy=in_stream, reshard_after_forward=False)
    units: list[FSDPModule] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:  # sums: the one division is the loop's
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden")
    if has_head:
        head: FSDPModule = model.output  # type: ignore[assignment]
        model.norm.register_forward_hook(lambda *_: head.unshard())


@torch.no_grad()
def fill(model: nn.Module, *, seed: int) -> None:
    """Draw every weight as one process would and keep this process's piece of it."""
    for parameter, whole in initial_weights(model, seed=seed):
        if isinstance(parameter, DTensor):
            shape, offset = compute_local_shape_and_global_offset(
                parameter.shape, parameter.device_mesh, parameter.placements
            )
            piece = whole[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
            parameter.to_local().copy_(piece)
        else:
            parameter.copy_(whole)
