"""The blocks of a model while it is trained: checkpointed, compiled, in 8 bits; untouched before and after."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from puna.core.machine import SpeedConfig
from puna.model.transformer import TransformerBlock
from puna.training.linear_cross_entropy import cross_entropy_kernel
from puna.training.speed.checkpointing import checkpointed
from puna.training.speed.float8 import check_float8, float8_linear
from puna.training.speed.liger import liger_cross_entropy

__all__ = ["faster_blocks"]


@contextmanager
def faster_blocks(model: nn.Module, config: SpeedConfig, *, has_float8: bool = False) -> Iterator[None]:
    """Train every transformer block inside `model` as the settings say; parameters and their names are untouched.

    Calls without gradients or with a cache run the plain block. Sharding may come first: its hooks stay outside.

    Raises:
        ConfigError: the machine or the model does not allow what is asked for.
    """
    if has_float8:
        check_float8(model)
    with ExitStack() as undo:
        if config.cross_entropy == "liger":
            undo.enter_context(cross_entropy_kernel(liger_cross_entropy(next(model.parameters()).device)))
        for block in [module for module in model.modules() if isinstance(module, TransformerBlock)]:
            if has_float8:
                undo.enter_context(_plain_products(block))
                for linear in [module for module in block.modules() if isinstance(module, nn.Linear)]:
                    undo.enter_context(_replaced(linear, partial(_float8, linear)))
            if config.checkpointing != "none" or config.compile:
                trained = checkpointed(block.forward, config.checkpointing)
                if config.compile:
                    trained = torch.compile(trained)
                undo.enter_context(_replaced(block, partial(_forward, trained, block.forward)))
        yield


def _forward(
    trained: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    x: Tensor,
    angles: Any,
    mask: Any,
    cache: Any,
) -> Tensor:
    is_training = torch.is_grad_enabled() and cache is None
    return (trained if is_training else plain)(x, angles, mask, cache)


def _float8(linear: nn.Linear, x: Tensor) -> Tensor:
    return float8_linear(x, linear.weight)


@contextmanager
def _plain_products(block: TransformerBlock) -> Iterator[None]:
    block.may_handwrite = False
    try:
        yield
    finally:
        block.may_handwrite = True


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Another forward for this one module, in front of the class's."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
