"""Settings that trade time, memory and compilation against one another; none changes the gradients but by rounding."""

from typing import Literal

from pydantic import Field

from puna.core.config import Settings

__all__ = ["Checkpointing", "SpeedConfig"]

Checkpointing = Literal["none", "selective", "full"]


class SpeedConfig(Settings):
    """How a step is made; all defaults are our choice, for the paper says nothing of it."""

    checkpointing: Checkpointing = "none"
    """Activations of a block that are made again backwards: none, all but the projections' products and fused
    attention (selective), or everything but the block's input (full)."""
    compile: bool = False
    """Compile each block with torch.compile: on GPUs. On a CPU the handwritten gradients are faster, without a
    compiler (docs/training_speed.md)."""
    cross_entropy: Literal["own", "liger"] = "own"
    """Kernel of the chunked next-token loss; liger needs CUDA and the package liger-kernel."""
    collect_every_steps: int | None = Field(default=50, gt=0)
    """Updates between collections of Python's garbage, the same on every process; None leaves it to Python."""
    prefetch: bool = False
    """Read the next update's batches in a thread while this one is computed: where data comes from slow disks."""
