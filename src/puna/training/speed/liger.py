"""Liger's fused linear cross-entropy as the kernel of the next-token loss, on CUDA. Not run on a GPU yet."""

import importlib
from typing import Any

import torch
from torch import Tensor

from puna.core.errors import ConfigError
from puna.training.linear_cross_entropy import IGNORED, CrossEntropyKernel

__all__ = ["liger_cross_entropy"]


def liger_cross_entropy(device: torch.device) -> CrossEntropyKernel:
    """The kernel, loaded now.

    Raises:
        ConfigError: no CUDA device, or the package is not installed.
    """
    if device.type != "cuda":
        raise _refusal("a CUDA device: liger's kernels are written in Triton", f"a model on {device}")
    try:
        loss: Any = importlib.import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(
            ignore_index=IGNORED, reduction="sum"
        )
    except ImportError as error:
        raise _refusal("the package liger-kernel", f"{type(error).__name__}: {error}") from None

    def kernel(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return loss(weight, hidden, targets).float()

    return kernel


def _refusal(expected: str, got: str) -> ConfigError:
    return ConfigError(
        where="speed.cross_entropy = liger",
        expected=expected,
        got=got,
        fix='Install it (pip install liger-kernel), or set cross_entropy = "own".',
    )
