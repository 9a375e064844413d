"""Evaluation suites that run during training, in its process, every so many updates.

A suite gets the model as it is, in evaluation mode, without gradients and in the training's precision; what it
returns becomes a row of metrics under its own name. It cannot change the training: torch's generators are put back.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from puna.core.errors import ConfigError

__all__ = ["EvaluationHook", "check_hooks", "run_hooks"]

_OWN_SPLITS = ("train", "validation", "system")


@runtime_checkable
class EvaluationHook(Protocol):
    """One suite; with several ranks it is called on each, and rank 0's numbers are kept."""

    @property
    def name(self) -> str:
        """The split of its rows in metrics.jsonl, and its key among the manifest's suites."""
        ...

    @property
    def every_steps(self) -> int:
        """Updates between two runs; it runs after the last update too."""
        ...

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, float]:
        """Measure the model after so many updates."""
        ...


def check_hooks(hooks: Sequence[EvaluationHook]) -> None:
    """Refuse names that would mix with other rows, and intervals below one update.

    Raises:
        ConfigError: says which.
    """
    names = [hook.name for hook in hooks]
    for hook in hooks:
        if hook.name in _OWN_SPLITS or names.count(hook.name) > 1:
            raise ConfigError(
                where="evaluation hooks",
                expected=f"names of their own, not {', '.join(_OWN_SPLITS)}",
                got=", ".join(names),
                fix="Rename the suite.",
            )
        if hook.every_steps < 1:
            raise ConfigError(
                where=f"evaluation hook {hook.name}",
                expected="every_steps of at least 1",
                got=str(hook.every_steps),
                fix="Correct every_steps.",
            )


def run_hooks(
    hooks: Sequence[EvaluationHook],
    model: nn.Module,
    *,
    step: int,
    is_last: bool,
    precision: Callable[[], AbstractContextManager[object]],
    write: Callable[..., None],
) -> dict[str, dict[str, float]]:
    """Run the suites that are due after this update and record their rows.

    Args:
        precision: Makes the context that a training forward pass runs in.
        write: Records a row: step, split, values by name.
    Returns:
        Values by suite, of those that ran.
    """
    due = [hook for hook in hooks if is_last or step % hook.every_steps == 0]
    results: dict[str, dict[str, float]] = {}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    was_training = model.training
    model.eval()
    try:
        for hook in due:
            with torch.random.fork_rng(devices), torch.no_grad(), precision():
                results[hook.name] = dict(hook.evaluate(model, step))
            write(step, hook.name, **results[hook.name])
    finally:
        model.train(was_training)
    return results
