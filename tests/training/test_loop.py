"""The loop: equal to one big batch, equal to itself after any interruption, and stopped by what is not finite."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from puna.core import energy as energy_module
from puna.core.errors import DataError, NumericsError
from puna.core.metrics import read_metrics
from puna.core.progress import Reporter
from puna.training import meter as meter_module
from puna.training.checkpoints import storage
from puna.training.loop import run
from puna.training.optimizer import OptimizerConfig

TIMED = "tokens_per_second"
MACHINES = {TIMED, "system"}
"""What no two runs share."""


def weights(task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def lines(context) -> list[dict]:
    """Metrics without those that measure time."""
    return [row for row in read_metrics(context.metrics.path) if row["split"] != "system"]


def test_training_learns(make_task, make_context, config) -> None:
    task = make_task()
    task.micro_batches = lambda step: type(task).micro_batches(task, 0)  # one batch, by heart
    faster = config.model_copy(update={"optimizer": OptimizerConfig(peak_lr=2e-2)})
    assert run(task, faster, make_context("a"))["train_loss"] < 0.8 * math.log(32)


def test_micro_batch_size_does_not_change_what_is_learned(make_task, make_context, config) -> None:
    whole, cut = make_task(micro_batch_size=4), make_task(micro_batch_size=1)
    for task, name in ((whole, "whole"), (cut, "cut")):
        run(task, config, make_context(name))
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(cut)[name], atol=2e-5, rtol=1e-4)


def test_updates_equal_plain_torch_on_the_mean_loss(make_task, make_context, config) -> None:
    task, reference = make_task(micro_batch_size=4), make_task(micro_batch_size=4)
    run(task, config, make_context("a"))
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in reference.model.parameters() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in reference.model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        eps=1e-5,
    )
    for step in range(config.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr(step)
        optimizer.zero_grad()
        (batch,) = reference.micro_batches(step)
        loss = reference.loss(batch)
        (loss.sum / loss.n_targets).backward()
        nn.utils.clip_grad_norm_(reference.model.parameters(), 1.0)
        optimizer.step()
    for name, value in weights(task).items():
        torch.testing.assert_close(value, weights(reference)[name], atol=2e-5, rtol=1e-4)


def test_metrics_have_their_steps_splits_and_means(make_task, make_context, config) -> None:
    context, task = make_context("a"), make_task()
    results = run(task, config, context)
    rows = read_metrics(context.metrics.path)
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == [3, 6, 9, 12, 15, 18, 20]
    assert {"loss", "grad_norm", "lr", "tokens", "odd_fraction"} < train[0].keys()
    assert [row["tokens"] for row in train] == [row["step"] * 4 * 16 for row in train]
    system = [row for row in rows if row["split"] == "system"]
    assert [row["step"] for row in system] == [row["step"] for row in train]
    assert all(row[TIMED] > 0 and row["mfu"] is None and row["rss_bytes"] > 0 for row in system)
    assert results["system"]["seconds"]["wall"] > results["system"]["seconds"]["update"] > 0
    assert [row["step"] for row in rows if row["split"] == "validation"] == [5, 10, 15, 20]
    assert (
        math.log(32) < train[0]["loss"] < math.log(32) + 0.6
    )  # logits of variance 1 cost half a nat at first
    assert 0 < train[0]["odd_fraction"] < 1
    assert results["tokens"] == 20 * 4 * 16
    assert results["train_loss"] == train[-1]["loss"]
    assert results["validation"]["loss"] == rows[-1]["loss"]


class Count:
    """A suite that counts the model's parameters, and would change a training that let it."""

    name, every_steps = "count", 8

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        torch.manual_seed(step)
        return {"n": float(sum(p.numel() for p in model.parameters()))}


def test_hooks_run_on_the_way_and_change_nothing(make_task, make_context, config) -> None:
    plain, hooked, context = make_task(), make_task(), make_context("hooked")
    run(plain, config, make_context("plain"))
    results = run(hooked, config, context, hooks=[Count()])
    rows = [row for row in read_metrics(context.metrics.path) if row["split"] == "count"]
    assert [row["step"] for row in rows] == [8, 16, 20]
    assert results["suites"]["count"]["n"] == rows[-1]["n"] > 0
    assert same(weights(plain), weights(hooked))


@pytest.mark.parametrize(
    ("step", "error"), [(1, RuntimeError), (4, KeyboardInterrupt), (5, RuntimeError), (18, KeyboardInterrupt)]
)
def test_an_interrupted_run_ends_with_the_same_bits(make_task, make_context, config, step, error) -> None:
    whole, context = make_task(), make_context("whole")
    expected = run(whole, config, context)

    def interrupt(at: int) -> None:
        if at == step:
            raise error

    broken = make_task()
    broken.before_loss = interrupt
    with pytest.raises(error):
        run(broken, config, make_context("cut"))
    resumed, resumed_context = make_task(seed=0), make_context("cut")
    results = run(resumed, config, resumed_context)
    assert same(weights(whole), weights(resumed))
    assert lines(context) == lines(resumed_context)
    assert {k: v for k, v in results.items() if k not in MACHINES} == {
        k: v for k, v in expected.items() if k not in MACHINES
    }


def kill_child_when(moment: str, train, task) -> None:
    """Run in a forked child that dies by SIGKILL at the moment; the parent returns when it is dead."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _arm(moment, task, writing)
            train()
            if moment == "somewhere after update 4":
                signal.pause()  # done before the parent's signal came
        finally:
            os._exit(1)
    os.close(writing)
    if moment == "somewhere after update 4":
        os.read(reading, 1)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    assert os.WIFSIGNALED(status), "the child was to be killed"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _arm(moment: str, task, writing: int) -> None:
    def die(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    original = Path.rename
    if moment == "before the state is renamed":
        Path.rename = lambda path, to: die() if "step-8" in path.name else original(path, to)
    elif moment == "after it is renamed":
        Path.rename = lambda path, to: (original(path, to), "step-8" in path.name and die())
    elif moment == "while the state is written":
        original_hash = storage.hash_share
        storage.hash_share = lambda folder, **rest: (
            die() if folder.name == ".step-8.partial" else original_hash(folder, **rest)
        )
    elif moment == "in the first forward pass":
        task.before_loss = die
    else:
        task.before_loss = lambda step: step == 4 and os.write(writing, b"x")


@pytest.mark.parametrize(
    "moment",
    [
        "while the state is written",
        "before the state is renamed",
        "after it is renamed",
        "in the first forward pass",
        "somewhere after update 4",
    ],
)
def test_a_killed_run_ends_with_the_same_bits(make_task, make_context, config, moment: str) -> None:
    config = config.model_copy(update={"total_steps": 50} if moment.startswith("somewhere") else {})
    whole, context = make_task(), make_context("whole")
    run(whole, config, context)
    killed = make_task()
    kill_child_when(moment, lambda: run(killed, config, make_context("killed")), killed)
    resumed, resumed_context = make_task(), make_context("killed")
    run(resumed, config, resumed_context)
    assert same(weights(whole), weights(resumed))
    assert lines(context) == lines(resumed_context)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(make_task, make_context, config, poison) -> None:
    task, healthy = make_task(), make_task()
    seen = {}

    def spoil(step: int) -> None:
        if step == 9:
            seen.update(weights(task))
            task.model.norm.register_forward_hook(lambda module, given, made: made * poison)

    task.before_loss = spoil
    with pytest.raises(NumericsError, match="update 10: expected a finite loss"):
        run(task, config, make_context("a"))
    assert same(seen, weights(task)), "nothing was updated"
    healthy_results = run(healthy, config, make_context("a"))  # the state of step 8 is kept
    assert math.isfinite(healthy_results["train_loss"])


def test_a_batch_without_targets_is_an_error(make_task, make_context, config) -> None:
    task = make_task()
    task.micro_batches = lambda step: [torch.zeros(2, 17, dtype=torch.int64)]
    with pytest.raises(DataError, match="at least one target"):
        run(task, config, make_context("a"))


def test_bfloat16_autocast_trains_float32_weights(make_task, make_context, config) -> None:
    task, exact = make_task(), make_task()
    lower = run(task, config.model_copy(update={"dtype": "bfloat16"}), make_context("a"))
    full = run(exact, config, make_context("b"))
    assert {value.dtype for value in weights(task).values()} == {torch.float32}
    assert not same(weights(task), weights(exact))
    assert lower["train_loss"] == pytest.approx(full["train_loss"], rel=0.02)


def test_speed_is_measured_over_updates_only(make_task, make_context, config, monkeypatch) -> None:
    """By a clock that moves in updates and in evaluations only: a second a micro-batch, an hour an evaluation."""
    clock = Clock()
    monkeypatch.setattr(meter_module, "time", clock)
    monkeypatch.setattr(energy_module, "time", clock)
    task = make_task(rows=4, micro_batch_size=2)
    task.before_loss = lambda step: clock.advance(1)
    task.evaluate = lambda: clock.advance(3600) or {"loss": 1.0}
    results = run(task, config, make_context("a"))
    assert results["system"]["seconds"]["update"] == 20 * 2
    assert results["system"]["seconds"]["evaluation"] == 4 * 3600
    assert results[TIMED] == results["tokens"] / 40


class Clock:
    now = 100.0

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.mark.parametrize(("n_steps", "is_said"), [(9, True), (10, False)])
def test_a_training_of_few_updates_says_so(
    make_task, make_context, config, capsys: pytest.CaptureFixture[str], n_steps: int, is_said: bool
) -> None:
    context = make_context("a")
    context.reporter = Reporter()
    run(make_task(), config.model_copy(update={"total_steps": n_steps}), context)
    text = f"only {n_steps} updates, {config.n_warmup_steps} of them warm-up"
    assert (text in capsys.readouterr().err) == is_said
