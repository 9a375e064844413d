"""Activation checkpointing (Chen et al. 2016): what a block keeps for its backward pass, and what it makes again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from puna.core.machine import Checkpointing

__all__ = ["checkpointed"]

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""Slow to compute, with results linear in the row's length. Scores made by batched products are quadratic in it:
they are recomputed."""


def checkpointed(block: Callable[..., Tensor], mode: Checkpointing) -> Callable[..., Tensor]:
    """The block's forward with less kept for the backward pass; the same gradients to the last bit."""
    if mode == "none":
        return block
    options: dict[str, Any] = {
        "use_reentrant": False,
        "preserve_rng_state": False,
        "determinism_check": "none",
    }
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, block, **options)


def _policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
