"""Tensor parallelism (Shoeybi et al. 2019) through DTensor: heads and inner widths are cut, the residual stream is not.

wq, wk, wv, w1 and w3 are cut by columns, wo and w2 by rows, embeddings and the head by vocabulary. Norm gains stay
whole on every process: their gradients are the same everywhere.
"""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from puna.model.transformer import Transformer

__all__ = ["cut_matrices"]


def cut_matrices(model: Transformer, mesh: DeviceMesh) -> None:
    """Replace each matrix by this process's part of it, in place; the model may be on the meta device.

    Attention and feed-forward take the whole stream once, so that its gradient is summed once a layer half and not
    once a matrix.
    """
    embedding = RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate())
    parallelize_module(model.tok_embeddings, mesh, embedding, src_data_rank=None)
    for layer in model.layers:
        parallelize_module(
            layer,
            mesh,
            {
                "attention": _whole_input(4),
                "attention.wq": ColwiseParallel(),
                "attention.wk": ColwiseParallel(),
                "attention.wv": ColwiseParallel(),
                "attention.wo": RowwiseParallel(input_layouts=Shard(-1)),
                "feed_forward": _whole_input(1),
                "feed_forward.w1": ColwiseParallel(),
                "feed_forward.w3": ColwiseParallel(),
                "feed_forward.w2": RowwiseParallel(input_layouts=Shard(-1)),
            },
            src_data_rank=None,
        )
    if not model.config.tie_embeddings:
        parallelize_module(model.output, mesh, ColwiseParallel(), src_data_rank=None)


def _whole_input(n_arguments: int) -> PrepareModuleInput:
    layouts = (Replicate(), *(None for _ in range(n_arguments - 1)))
    return PrepareModuleInput(input_layouts=layouts, desired_input_layouts=layouts)
