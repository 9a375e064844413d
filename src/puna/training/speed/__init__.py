"""How a step is made faster or smaller without changing what it learns."""

from puna.training.speed.blocks import faster_blocks
from puna.training.speed.garbage import scheduled_collection
from puna.training.speed.prefetch import prefetching

__all__ = ["faster_blocks", "prefetching", "scheduled_collection"]
