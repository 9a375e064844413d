"""Held-out measurements between two updates: the task's own, and the suites that run as hooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from puna.training.config import LoopConfig
from puna.training.hooks import EvaluationHook, run_hooks
from puna.training.journal import Journal
from puna.training.precision import precision
from puna.training.run_state import RunState
from puna.training.task import TrainingTask

__all__ = ["Measurements"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Both run in evaluation mode, without gradients and in the training's precision."""

    task: TrainingTask
    config: LoopConfig
    state: RunState
    journal: Journal
    hooks: Sequence[EvaluationHook]

    def evaluate(self, n_done: int) -> dict[str, float]:
        """The task's own measurements, recorded as the split "validation"."""
        self.state.watchdog.note(f"held-out measurements after update {n_done}")
        model = self.task.model
        model.eval()
        with self.state.meter.timing("evaluation"), torch.no_grad(), precision(model, self.config.dtype):
            values = self.task.evaluate()
        self.journal.ranks.after_evaluation(model)
        model.train()
        if values:
            self.journal.write(n_done, "validation", **values)
        return values

    def run_suites(self, n_done: int, *, is_last: bool) -> dict[str, Any]:
        """Values by suite, of those that were due."""
        if not self.hooks:
            return {}
        self.state.watchdog.note(f"evaluation suites after update {n_done}")
        model = self.task.model
        with self.state.meter.timing("evaluation"):
            measured = run_hooks(
                self.hooks,
                model,
                step=n_done,
                is_last=is_last,
                precision=lambda: precision(model, self.config.dtype),
                write=self.journal.write,
            )
        self.journal.ranks.after_evaluation(model)
        return measured
