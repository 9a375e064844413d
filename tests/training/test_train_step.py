"""One update by itself: what it returns, and what it leaves undone."""

import math
from pathlib import Path

import pytest
import torch

from puna.core.energy import EnergyConfig
from puna.core.errors import NumericsError
from puna.training.checkpoints import Checkpointer, Safeguards
from puna.training.meter import Meter
from puna.training.optimizer import make_optimizer
from puna.training.parallel.ranks import SINGLE
from puna.training.run_state import RunState
from puna.training.signals import StopRequest
from puna.training.spikes import SpikeConfig
from puna.training.train_step import TrainStep
from puna.training.watchdog import Watchdog
from training.test_loop import same, weights


@pytest.fixture
def make_step(make_task, config, tmp_path: Path):
    def make(**settings: object) -> TrainStep:
        task = make_task()
        optimizer = make_optimizer(task.model, config.optimizer)
        checkpoints = Checkpointer(
            tmp_path, model=task.model, optimizer=optimizer, ranks=SINGLE, safeguards=Safeguards(), tell=print
        )
        state = RunState(
            checkpoints=checkpoints,
            meter=Meter(torch.device("cpu"), EnergyConfig()),
            watchdog=Watchdog(tmp_path, rank=0, stall_seconds=None),
        )
        return TrainStep(
            task=task,
            config=config.model_copy(update=settings),
            ranks=SINGLE,
            optimizer=optimizer,
            state=state,
            request=StopRequest(),
            read=task.micro_batches,
        )

    return make


def test_a_step_reports_sums_over_its_targets_and_changes_the_weights(make_step) -> None:
    step = make_step()
    before = weights(step.task)
    with torch.no_grad():
        losses = [step.task.loss(batch) for batch in step.task.micro_batches(0)]
    result = step(0)
    assert result.update is not None
    assert result.update.n_targets == sum(loss.n_targets for loss in losses)
    assert result.update.loss == pytest.approx(sum(loss.sum.item() for loss in losses))
    assert result.update.mean_loss == pytest.approx(result.update.loss / result.update.n_targets)
    assert result.update.n_tokens == 4 * 16
    assert set(result.update.metrics) == {"odd_fraction"}
    assert result.update.lr == step.config.lr(0)
    assert (result.spike, result.is_stop_requested) == (None, False)
    assert not same(before, weights(step.task))


@pytest.mark.parametrize(("action", "is_made"), [("none", True), ("skip", False), ("rollback", False)])
def test_a_step_in_the_list_of_those_left_out_is_a_spike(make_step, action: str, is_made: bool) -> None:
    step = make_step(spikes=SpikeConfig(action=action))
    step.state.left_out = [1]
    before = weights(step.task)
    result = step(0)
    assert result.spike is not None
    assert (result.update is not None) == is_made
    assert same(before, weights(step.task)) != is_made


def test_a_signal_is_reported_after_the_update(make_step) -> None:
    step = make_step()
    step.request.name = "SIGTERM"
    result = step(0)
    assert result.is_stop_requested
    assert result.update is not None


def test_the_gradient_is_clipped_and_its_norm_told_unclipped(make_step) -> None:
    step = make_step()
    update = step.clip(step.forward_backward(0), 0)
    clipped = math.sqrt(sum(float(p.grad.square().sum()) for p in step.task.model.parameters()))
    assert update.grad_norm > 1
    assert clipped == pytest.approx(1.0, rel=1e-4)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(make_step) -> None:
    step = make_step()
    step.task.model.norm.register_forward_hook(lambda module, given, made: made * math.nan)
    before = weights(step.task)
    with pytest.raises(NumericsError, match="update 1: expected a finite loss"):
        step(0)
    assert same(before, weights(step.task))
