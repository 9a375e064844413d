"""How a step is made faster or smaller without changing what it learns."""

from puna.training.speed.blocks import faster_blocks
from puna.training.speed.garbage import COLLECT_EVERY_STEPS, scheduled_collection
from puna.training.speed.prefetch import prefetching

__all__ = ["COLLECT_EVERY_STEPS", "faster_blocks", "prefetching", "scheduled_collection"]
