"""One training on many processes: FSDP2, hybrid sharding and tensor parallelism over one device mesh (§2.2.1)."""

from puna.training.parallel.config import Layout, ParallelConfig
from puna.training.parallel.ranks import SINGLE, Ranks
from puna.training.parallel.sharding import make_sharded
from puna.training.parallel.torchrun import TorchrunRanks, is_torchrun, torchrun

__all__ = [
    "SINGLE",
    "Layout",
    "ParallelConfig",
    "Ranks",
    "TorchrunRanks",
    "is_torchrun",
    "make_sharded",
    "torchrun",
]
