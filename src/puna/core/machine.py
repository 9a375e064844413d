"""The machine a run uses: device, threads, speed options, trackers, energy. Nothing here changes what is learned.

These settings stand in the section [machine] of a recipe and in options such as `--device`. They reach every stage
through its context and are in no fingerprint, so a run may be continued on another machine.
"""

from typing import Literal

import torch
from pydantic import Field

from puna.core.config import Settings
from puna.core.devices import pick_device, set_threads
from puna.core.energy import EnergyConfig
from puna.core.trackers import TrackingConfig

__all__ = ["Checkpointing", "Machine", "SpeedConfig"]

Checkpointing = Literal["none", "selective", "full"]


class SpeedConfig(Settings):
    """How a training step is computed: time, memory and compilation against one another; gradients differ by rounding
    at most. All defaults are our choice: the paper does not discuss them."""

    checkpointing: Checkpointing = "none"
    """Activations of a block that are computed again in the backward pass: none, all but the projections' products and
    fused attention (selective), or everything but the block's input (full)."""
    compile: bool = False
    """Compile each block with torch.compile: on GPUs. On a CPU the handwritten gradients are faster, without a
    compiler (docs/training_speed.md)."""
    cross_entropy: Literal["own", "liger"] = "own"
    """Kernel of the chunked next-token loss; liger needs CUDA and the package liger-kernel."""
    prefetch: bool = False
    """Read the next update's batches in a thread while this one is computed: where data comes from slow disks."""


class Machine(Settings):
    """Where a stage computes and what it reports besides its results."""

    device: str = "auto"
    """auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one CPU operation; None takes OMP_NUM_THREADS, or every available core. Results are the same to the
    last bit at one thread count only."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of float32 matrix products on a GPU: highest is true float32, high uses TF32 (torch's own names)."""
    speed: SpeedConfig = SpeedConfig()
    """How a training step is computed."""
    tracking: TrackingConfig = TrackingConfig()
    """Trackers besides metrics.jsonl and TensorBoard."""
    energy: EnergyConfig = EnergyConfig()
    """What turns hours into energy and carbon."""

    @property
    def torch_device(self) -> torch.device:
        """The device by torch's name.

        Raises:
            ConfigError: torch does not know the name, or this machine lacks the device.
        """
        return pick_device(self.device)

    def apply(self) -> None:
        """Set this process's threads and matrix precision, and refuse a device that is not there."""
        _ = self.torch_device
        set_threads(self.threads)
        torch.set_float32_matmul_precision(self.matmul_precision)
