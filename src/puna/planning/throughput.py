"""Time and money of a training, from its operations and a share of the GPU's peak (MFU).

The MFU is a number that is given, not predicted: it depends on code and network. The paper's own runs imply the
values that `paper_table.py` derives.
"""

from dataclasses import dataclass

from puna.core.accelerators import Accelerator
from puna.model.accounting import training_flops_per_token
from puna.model.config import ModelConfig

__all__ = ["Throughput", "gpu_hours_for", "mfu_of", "throughput"]

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What a training takes."""

    flops_per_token: int
    """Forward and backward, as model/accounting.py counts; recomputed activations are not credited."""
    flops: int
    """Of the whole training."""
    mfu: float
    """Share of the peak that was taken for granted."""
    tokens_per_second_per_gpu: float
    tokens_per_second: float
    """Of all GPUs together."""
    gpu_hours: float
    days: float
    """From the first update to the last, without evaluation, checkpoints and failures."""


def throughput(
    config: ModelConfig, gpu: Accelerator, *, n_tokens: int, seq_len: int, n_gpus: int, mfu: float
) -> Throughput:
    """Speed and duration at an MFU of the dense bfloat16 peak."""
    per_token = training_flops_per_token(config, seq_len=seq_len)
    rate = mfu * gpu.bf16_flops / per_token
    hours = gpu_hours_for(n_tokens, tokens_per_second_per_gpu=rate)
    return Throughput(
        flops_per_token=per_token,
        flops=per_token * n_tokens,
        mfu=mfu,
        tokens_per_second_per_gpu=rate,
        tokens_per_second=rate * n_gpus,
        gpu_hours=hours,
        days=hours / n_gpus / 24,
    )


def gpu_hours_for(n_tokens: int, *, tokens_per_second_per_gpu: float) -> float:
    """Hours of one GPU at that rate."""
    return n_tokens / tokens_per_second_per_gpu / _SECONDS_PER_HOUR


def mfu_of(tokens_per_second_per_gpu: float, *, flops_per_token: float, peak_flops: float) -> float:
    """Model FLOPs utilization (Chowdhery et al. 2022, App. B): operations needed over operations possible."""
    return tokens_per_second_per_gpu * flops_per_token / peak_flops
