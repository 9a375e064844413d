"""Where a number stopped being finite: the update's batch once more, micro-batch by micro-batch, with eyes open.

Nothing was updated, so the second pass meets the same numbers. It runs on all processes together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from puna.core.errors import NumericsError
from puna.training.config import LoopConfig
from puna.training.parallel.ranks import Ranks
from puna.training.precision import precision
from puna.training.task import DescribesBatches, TrainingTask

__all__ = ["not_finite"]


def not_finite(
    task: TrainingTask,
    config: LoopConfig,
    step: int,
    ranks: Ranks,
    *,
    loss: float,
    grad_norm: float,
    state: str,
) -> NumericsError:
    """The error for an update whose loss or gradient is not finite; names layer and batch where a second pass can.

    Args:
        step: Counted from 0.
        state: What remains to go on from, for the message.
    """
    findings = [text for text in ranks.gather(_look(task, config, step, ranks)) if text]
    found = findings[0] if findings else "a second pass over the batch found every number finite"
    return NumericsError(
        where=f"update {step + 1}",
        expected="a finite loss and gradient",
        got=f"summed loss {loss}, gradient norm {grad_norm}; {found}",
        fix=f"Nothing was updated; {state}. Lower peak_lr, lengthen the warm-up, or inspect this batch.",
    )


def _look(task: TrainingTask, config: LoopConfig, step: int, ranks: Ranks) -> str | None:
    batches, n_counted = ranks.share_of(task.micro_batches(step))
    found = None
    for index, batch in enumerate(batches):
        task.model.zero_grad(set_to_none=True)
        ranks.before_micro_batch(task.model, is_last=True)
        with _first_bad_module(task.model) as seen, precision(task.model, config.dtype):
            loss = task.loss(batch)
        with _bad_gradients(task.model) as reached:
            (loss.sum if index < n_counted else loss.sum * 0.0).backward()
        parameter = reached[0] if reached else _any_bad_gradient(task.model)
        if found is None and index < n_counted and (seen or parameter or not torch.isfinite(loss.sum)):
            layer = f"the output of {seen[0]}" if seen else f"the gradient of {parameter or 'the loss'}"
            found = f"the first such number is in {layer}, in {_name(task, step, index, ranks)}"
    task.model.zero_grad(set_to_none=True)
    return found


@contextmanager
def _first_bad_module(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules in the order in which they put out something that is not finite; innermost first."""
    seen: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(_local(output)).all()):
                seen.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _bad_gradients(model: nn.Module) -> Iterator[list[str]]:
    """Names of parameters in the order in which the backward pass reaches them, if their gradient is not finite."""
    reached: list[str] = []

    def look(name: str) -> Any:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None and not bool(torch.isfinite(_local(parameter.grad)).all()):
                reached.append(name)

        return hook

    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(look(name)) for name, parameter in trained]
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()


def _any_bad_gradient(model: nn.Module) -> str | None:
    """Where gradients come in pieces their order is not known: the last layer's, as backward passes begin there."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(torch.isfinite(_local(parameter.grad)).all()):
            return name
    return None


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _name(task: TrainingTask, step: int, index: int, ranks: Ranks) -> str:
    number = ranks.number_of(index)
    text = f"micro-batch {number + 1} of update {step + 1}"
    return f"{text} ({task.describe(step, number)})" if isinstance(task, DescribesBatches) else text
