"""What the loop does when something goes wrong on the way: spikes, divergence, signals, full disks, broken numbers."""

import errno
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from puna.core.errors import NumericsError, Preempted, StorageError
from puna.core.metrics import read_metrics
from puna.core.progress import Reporter
from puna.training.checkpoints import storage
from puna.training.loop import run
from puna.training.optimizer import OptimizerConfig
from puna.training.spikes import SpikeConfig
from training.test_loop import lines, same, weights

SPIKE = 14
"""The update whose batch is poisoned, counted from 1."""


def poisoned(make_task, *updates: int):
    """A task whose targets are noise in these updates: their loss stands out once the rest is learned."""
    task = make_task()

    def micro_batches(step: int):
        task.step = step
        batches = type(task).micro_batches(task, 0)
        task.step = step
        if step + 1 in updates:
            return [31 - batch for batch in batches]
        return batches

    task.micro_batches = micro_batches
    return task


@pytest.fixture
def learning(config):
    """One batch by heart, fast."""
    return config.model_copy(update={"optimizer": OptimizerConfig(peak_lr=2e-2), "checkpoint_every_steps": 6})


def watching(config, action: str, **more: object):
    spikes = SpikeConfig(action=action, window_steps=5, threshold=3.0, **more)
    return config.model_copy(update={"spikes": spikes})


def spikes(context) -> list[dict]:
    return [row for row in read_metrics(context.metrics.path) if row["split"] == "spikes"]


def test_a_spike_is_recorded_and_the_update_made_anyway(make_task, make_context, learning) -> None:
    plain, watched = poisoned(make_task, SPIKE), poisoned(make_task, SPIKE)
    run(plain, learning, make_context("plain"))
    context = make_context("watched")
    run(watched, watching(learning, "none"), context)
    assert same(weights(plain), weights(watched))
    (row,) = spikes(context)
    assert (row["step"], row["action"]) == (SPIKE, "none")
    assert row["loss"] > row["expected"] + 3 * row["deviation"]


def test_skip_leaves_out_the_update_alone(make_task, make_context, learning) -> None:
    task, context = poisoned(make_task, SPIKE), make_context("a")
    by_step = {}
    task.before_loss = lambda step: by_step.setdefault(step + 1, weights(task))
    run(task, watching(learning, "skip"), context)
    assert same(by_step[SPIKE], by_step[SPIKE + 1])
    assert not same(by_step[SPIKE - 1], by_step[SPIKE])
    assert [row["action"] for row in spikes(context)] == ["skip"]
    assert all(math.isfinite(row["loss"]) for row in read_metrics(context.metrics.path) if "loss" in row)


def test_rollback_goes_back_and_leaves_out_the_batches_before(make_task, make_context, learning) -> None:
    task, context, seen = poisoned(make_task, SPIKE), make_context("a"), []
    task.before_loss = lambda step: seen.append(step + 1)
    results = run(task, watching(learning, "rollback", n_skipped_batches=2), context)
    order = [step for i, step in enumerate(seen) if i == 0 or seen[i - 1] != step]
    assert order == [*range(1, SPIKE + 1), *range(13, 21)], "state of update 12, the last before the spike"
    assert [row["step"] for row in spikes(context)] == [13, 14]
    train = [row["step"] for row in read_metrics(context.metrics.path) if row["split"] == "train"]
    assert train == [3, 6, 9, 12, 15, 18, 20], "every line once"
    assert results["tokens"] == 18 * 4 * 16, "two updates were not made"


@pytest.mark.parametrize("action", ["skip", "rollback"])
@pytest.mark.parametrize("step", [13, 14, 17])
def test_interrupted_around_a_spike_it_ends_with_the_same_bits(
    make_task, make_context, learning, action, step
) -> None:
    config = watching(learning, action)
    whole, context = poisoned(make_task, SPIKE), make_context("whole")
    run(whole, config, context)

    def interrupt(at: int) -> None:
        if at == step:
            raise KeyboardInterrupt

    broken = poisoned(make_task, SPIKE)
    broken.before_loss = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(broken, config, make_context("cut"))
    resumed, resumed_context = poisoned(make_task, SPIKE), make_context("cut")
    run(resumed, config, resumed_context)
    assert same(weights(whole), weights(resumed))
    assert lines(context) == lines(resumed_context)


def test_too_many_rollbacks_stop(make_task, make_context, learning) -> None:
    task = poisoned(make_task, 14, 16)
    with pytest.raises(NumericsError, match=r"update 16.*at most 1 rollbacks"):
        run(task, watching(learning, "rollback", max_rollbacks=1), make_context("a"))


def test_a_rate_of_ten_diverges_with_a_message_and_leaves_no_bad_state(
    make_task, make_context, config
) -> None:
    hot = config.model_copy(
        update={"optimizer": OptimizerConfig(peak_lr=10.0), "warmup_steps": 0, "checkpoint_every_steps": 1}
    )
    context = make_context("a")
    with pytest.raises(NumericsError, match=r"diverges|finite") as caught:
        run(make_task(), hot, context)
    assert "Lower peak_lr" in str(caught.value)
    assert not list(context.state.glob("step-*")), "its first update already spoiled the weights"


def test_a_divergence_leaves_the_last_good_state(make_task, make_context, config) -> None:
    """Losses leave at update 11: the state of update 10 holds the weights that gave it, the one of 8 is good."""
    often = config.model_copy(update={"checkpoint_every_steps": 2})
    task, context = make_task(), make_context("a")
    loss = task.loss

    def leaving(batch):
        found = loss(batch)
        return replace(found, sum=found.sum * 50) if task.step >= 10 else found

    task.loss = leaving
    with pytest.raises(
        NumericsError, match=r"5 updates above it.*last training state before it left is kept"
    ):
        run(task, often, context)
    assert {path.name for path in context.state.glob("*step-*")} == {"step-8", "damaged-step-10"}


def test_without_warmup_the_first_update_is_at_the_peak(make_task, make_context, config) -> None:
    """Allowed: the schedule starts at its top; AdamW's first updates are then as large as any."""
    none = config.model_copy(update={"warmup_steps": 0, "total_steps": 4, "log_every_steps": 1})
    context = make_context("a")
    run(make_task(), none, context)
    assert next(row["lr"] for row in read_metrics(context.metrics.path)) == pytest.approx(3e-3, rel=0.2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_after_the_update_and_the_run_goes_on_to_the_same_bits(
    make_task, make_context, config, number
) -> None:
    whole, context = make_task(), make_context("whole")
    run(whole, config, context)
    stopped = make_task()
    stopped.before_loss = lambda step: os.kill(os.getpid(), number) if step == 6 else None
    with pytest.raises(Preempted, match=f"{number.name} after update 7 of 20.*same command") as caught:
        run(stopped, config, make_context("cut"))
    assert caught.value.exit_code == 0
    assert (make_context("cut").state / "step-7").is_dir()
    resumed, resumed_context = make_task(), make_context("cut")
    run(resumed, config, resumed_context)
    assert same(weights(whole), weights(resumed))
    assert lines(context) == lines(resumed_context)


def test_a_full_disk_stops_nothing_and_is_recorded(make_task, make_context, config, monkeypatch) -> None:
    whole = make_task()
    run(whole, config, make_context("whole"))
    task, context, told = make_task(), make_context("a"), []
    context.reporter = Reporter(is_silent=True)
    monkeypatch.setattr(context.reporter, "log", told.append)
    write_facts = storage.write_facts

    def full(folder: Path, step: int, *rest: object) -> None:
        if step in (8, 12):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_facts(folder, step, *rest)

    monkeypatch.setattr(storage, "write_facts", full)
    run(task, config, context)
    assert same(weights(whole), weights(task))
    failed = [row for row in read_metrics(context.metrics.path) if row["split"] == "checkpoints"]
    assert [row["failed_step"] for row in failed] == [8, 12]
    assert len([text for text in told if "WARNING" in text and "free disk space" in text]) == 2
    assert {path.name for path in context.state.glob("step-*")} == {"step-4", "step-16"}


def test_metrics_that_find_no_room_are_written_later(make_task, make_context, config, monkeypatch) -> None:
    context = make_context("a")
    write, n_calls = context.metrics.write, []

    def sometimes(step: int, split: str, **values: object) -> None:
        n_calls.append(step)
        write(step, split, **values)
        if len(n_calls) == 2:
            raise StorageError(where="x", expected="room", got="No space left", fix="Free disk space.")

    monkeypatch.setattr(context.metrics, "write", sometimes)
    run(make_task(), config, context)
    assert [r["step"] for r in read_metrics(context.metrics.path) if r["split"] == "train"][-1] == 20


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("activation", r"the output of layers\.1\.attention\.wq, in micro-batch 2 of update 4"),
        ("gradient", r"the gradient of layers\.0\.feed_forward\.w2\.weight, in micro-batch 2 of update 4"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named(
    make_task, make_context, config, where, expected
) -> None:
    task, context = make_task(), make_context("a")
    is_armed = False

    def arm(step: int) -> None:
        nonlocal is_armed
        batches = list(type(task).micro_batches(task, step))
        is_armed = step == 3 and torch.equal(task.current, batches[1])

    loss = task.loss

    def watched(batch):
        task.current = batch
        return loss(batch)

    def hook(module, inputs, output):
        if not is_armed:
            return output
        return output * math.inf if where == "activation" else _Poison.apply(output)

    task.before_loss, task.loss = arm, watched
    module = task.model.layers[1].attention.wq if where == "activation" else task.model.layers[0].feed_forward
    module.register_forward_hook(hook)
    before = []
    task.model.layers[0].register_forward_pre_hook(lambda *_: before.append(weights(task)))
    with pytest.raises(NumericsError, match=expected) as caught:
        run(task, config, context)
    assert "Nothing was updated" in str(caught.value)
    assert same(before[-1], weights(task))
    assert not list(context.state.glob("step-4"))
