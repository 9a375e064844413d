"""The processes that torchrun started: sums over all of them, batches shared between them."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from puna.model.config import ModelConfig
from puna.training.config import LoopConfig
from puna.training.parallel.config import Layout, ParallelConfig
from puna.training.parallel.gradients import average_and_clip_shards
from puna.training.parallel.ranks import Ranks

__all__ = ["TorchrunRanks", "is_torchrun", "torchrun"]

AXES = ("dp_replicate", "dp_shard", "tp")


def is_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class TorchrunRanks(Ranks):
    """Ranks over a mesh with the axes dp_replicate, dp_shard and tp."""

    def __init__(self, config: ParallelConfig, device: torch.device) -> None:
        """Join the others; the default process group exists already."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.layout: Layout = config.layout(self.size)
        self.device = device
        self.mesh: DeviceMesh = init_device_mesh(
            device.type,
            (self.layout.dp_replicate, self.layout.dp_shard, self.layout.tp),
            mesh_dim_names=AXES,
        )
        self.n_shares = self.layout.n_shares
        self._share = self.rank // self.layout.tp
        self._config = config
        self._control = dist.new_group(backend="gloo")
        self._background = dist.new_group(backend="gloo")

    def check(self, model: ModelConfig, loop: LoopConfig) -> None:
        """Refuse what cannot be cut into equal parts, before anything is made.

        Raises:
            ConfigError: names the size that does not divide.
        """
        self._config.check_model(model)
        self._config.check_loop(loop, self.layout)

    def share_of(self, batches: Sequence[Any]) -> tuple[list[Any], int]:
        """Every n-th micro-batch; where they do not come out even, the last one again, for nothing."""
        n = len(batches)
        mine = [batches[i] for i in range(self._share, n, self.n_shares)]
        filler = [batches[n - 1]] * (-(-n // self.n_shares) - len(mine))
        return mine + filler, len(mine)

    def number_of(self, index: int) -> int:
        """Shares are strided."""
        return self._share + index * self.n_shares

    def before_micro_batch(self, model: nn.Module, *, is_last: bool) -> None:
        """Reduce after the last backward pass only, unless memory is short."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last or self._config.reduce_every_micro_batch)

    def reduce(
        self, sums: dict[str, Tensor | float], counts: Sequence[int]
    ) -> tuple[dict[str, Tensor | float], list[int]]:
        """One all-reduce in float64; of tensor-parallel processes, which hold the same sums, one counts."""
        names = self._agreed_names(sums)
        values = [
            torch.as_tensor(sums.get(name, 0.0), dtype=torch.float64, device=self.device) for name in names
        ]
        packed = torch.stack(
            [*values, *(torch.tensor(n, dtype=torch.float64, device=self.device) for n in counts)]
        )
        if self.rank % self.layout.tp:
            packed.zero_()
        dist.all_reduce(packed)
        totals = packed.tolist()
        n = len(names)
        return dict(zip(names, totals[:n], strict=True)), [int(count) for count in totals[n:]]

    def _agreed_names(self, sums: dict[str, Tensor | float]) -> list[str]:
        """Names on any process, in one order: a metric may be absent where a batch has nothing to measure."""
        everywhere = self.gather(list(sums))
        return list(dict.fromkeys(name for names in everywhere for name in names))

    def average_and_clip(
        self, parameters: Iterable[nn.Parameter], *, n_targets: int, max_norm: float
    ) -> Tensor:
        """The norm of the whole gradient, each shard counted once."""
        return average_and_clip_shards(
            parameters, n_targets=n_targets, max_norm=max_norm, world_size=self.size
        )

    def any_is(self, flag: bool) -> bool:
        """One small all-reduce on the CPU."""
        value = torch.tensor(int(flag))
        dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self._control)
        return bool(value.item())

    def gather(self, value: Any, *, in_background: bool = False) -> list[Any]:
        """Through gloo, so that it works beside CUDA work; values are of our own making."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._background if in_background else self._control)
        return values

    def checkpoint_group(self, *, in_background: bool) -> Any:
        """A group of its own for the thread that writes, whose messages must not mix with the training's."""
        return self._background if in_background else self._control

    def after_evaluation(self, model: nn.Module) -> None:
        """Shard again: without a backward pass the last units stay whole."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


@contextmanager
def torchrun(config: ParallelConfig, device: torch.device) -> Iterator[TorchrunRanks]:
    """Join the process group for as long as the body runs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        with warnings.catch_warnings():
            # an embedding that is cut twice puts out a view; nothing here is changed in place
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            yield TorchrunRanks(config, device)
    finally:
        dist.destroy_process_group()
