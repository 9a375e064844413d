"""The blocks of a model while it is trained: by hand, checkpointed, compiled, in 8 bits; untouched before and after."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from puna.core.machine import SpeedConfig
from puna.model.attention import AttentionMask, Cache
from puna.model.rope import Rotation
from puna.model.transformer import TransformerBlock
from puna.training.linear_cross_entropy import cross_entropy_kernel
from puna.training.speed.checkpointing import checkpointed
from puna.training.speed.float8 import check_float8, float8_linear
from puna.training.speed.handwritten import suits_block, train_block, weights_of
from puna.training.speed.liger import liger_cross_entropy

__all__ = ["faster_blocks"]


@contextmanager
def faster_blocks(model: nn.Module, config: SpeedConfig, *, has_float8: bool = False) -> Iterator[None]:
    """Train every transformer block inside `model` as the settings say; parameters and their names are untouched.

    Under autocast over float32 weights the gradients are the handwritten ones, unless products are in 8 bits or a
    compiler makes the block. Calls without gradients or with a cache run the plain block. Sharding may come first: its
    hooks stay outside.

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
                for linear in [module for module in block.modules() if isinstance(module, nn.Linear)]:
                    undo.enter_context(_replaced(linear, partial(_float8, linear)))
            plain = block.forward
            trained = plain if has_float8 or config.compile else partial(_by_hand, block, plain)
            trained = checkpointed(trained, config.checkpointing)
            if config.compile:
                trained = torch.compile(trained)
            undo.enter_context(_replaced(block, partial(_forward, trained, plain)))
        yield


def _forward(
    trained: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    x: Tensor,
    angles: Rotation,
    mask: AttentionMask,
    cache: Cache | None,
) -> Tensor:
    is_training = torch.is_grad_enabled() and cache is None
    return (trained if is_training else plain)(x, angles, mask, cache)


def _by_hand(
    block: TransformerBlock,
    plain: Callable[..., Tensor],
    x: Tensor,
    angles: Rotation,
    mask: AttentionMask,
    cache: None,
) -> Tensor:
    """Handwritten gradients where they suit, which each call decides."""
    if suits_block(x, block.attention.wq.weight):
        return train_block(x, weights_of(block), angles, mask, eps=block.attention_norm.eps)
    return plain(x, angles, mask, cache)


def _float8(linear: nn.Linear, x: Tensor) -> Tensor:
    return float8_linear(x, linear.weight)


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Another forward for this one module, in front of the class's."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
