"""Suites run when due, see an evaluating model, and leave the training as it was."""

from collections.abc import Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from puna.core.errors import ConfigError
from puna.core.metrics import MetricsLog, read_metrics
from puna.training.hooks import check_hooks, run_hooks


class Suite:
    """Draws a random number and notes what it saw."""

    def __init__(self, name: str = "suite", every_steps: int = 3) -> None:
        self.name, self.every_steps = name, every_steps
        self.seen: list[tuple[int, bool, bool]] = []

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, float]:
        self.seen.append((step, model.training, torch.is_grad_enabled()))
        return {"draw": torch.rand(()).item()}


def run(hooks: list[Suite], model: nn.Module, log: MetricsLog, step: int, *, is_last: bool = False) -> dict:
    return run_hooks(hooks, model, step=step, is_last=is_last, precision=nullcontext, write=log.write)


def test_suites_run_when_due_and_after_the_last_update(tmp_path) -> None:
    often, seldom, model = Suite("often", 2), Suite("seldom", 5), nn.Linear(2, 2)
    log = MetricsLog(tmp_path, tensorboard=False)
    for step in range(1, 8):
        results = run([often, seldom], model, log, step, is_last=step == 7)
    assert [step for step, *_ in often.seen] == [2, 4, 6, 7]
    assert [step for step, *_ in seldom.seen] == [5, 7]
    assert not any(training or grad for _, training, grad in often.seen)
    assert model.training
    rows = read_metrics(log.path)
    assert [(row["step"], row["split"]) for row in rows][:3] == [(2, "often"), (4, "often"), (5, "seldom")]
    assert results.keys() == {"often", "seldom"}
    log.close()


def test_a_suite_leaves_the_generators_alone(tmp_path) -> None:
    log, model = MetricsLog(tmp_path, tensorboard=False), nn.Linear(2, 2)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run([Suite()], model, log, 3)
    assert torch.equal(torch.rand(3), expected)
    log.close()


def test_a_suite_that_fails_leaves_a_training_model(tmp_path) -> None:
    log, model, suite = MetricsLog(tmp_path, tensorboard=False), nn.Linear(2, 2), Suite()
    suite.evaluate = lambda model, step: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run([suite], model, log, 3)
    assert model.training
    log.close()


@pytest.mark.parametrize("names", [("train",), ("a", "a"), ("validation", "b"), ("system",)])
def test_names_that_would_mix_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="names of their own"):
        check_hooks([Suite(name) for name in names])


def test_a_period_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        check_hooks([Suite(every_steps=0)])
