"""The one training loop: pretraining, supervised fine-tuning and reward models differ in their task only.

An update sums the losses of its micro-batches, on all processes, and divides once by all their targets, so neither the
cut into micro-batches nor the number of processes changes what is learned. Killed at any moment, a run continues to
the same bits. One update is train_step.py; this file says what is due between two of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from puna.core.allocator import keep_freed_memory
from puna.core.artifacts import StageContext
from puna.core.errors import Preempted
from puna.core.seeding import derive_seed
from puna.training import spike_response
from puna.training.checkpoints import Checkpointer, Safeguards
from puna.training.config import LoopConfig
from puna.training.hooks import EvaluationHook, check_hooks
from puna.training.interval import Update
from puna.training.journal import Journal
from puna.training.measurements import Measurements
from puna.training.meter import Meter
from puna.training.optimizer import make_optimizer
from puna.training.parallel.ranks import SINGLE, Ranks
from puna.training.run_state import RunState
from puna.training.signals import StopRequest, stop_requests
from puna.training.speed import COLLECT_EVERY_STEPS, faster_blocks, prefetching, scheduled_collection
from puna.training.task import CountsFlops, LossSum, TrainingTask
from puna.training.train_step import TrainStep
from puna.training.watchdog import Watchdog

__all__ = ["LoopConfig", "LossSum", "TrainingTask", "run"]

FEW_UPDATES = 10
"""A training of fewer updates says so when it starts: it teaches next to nothing."""


def run(
    task: TrainingTask,
    config: LoopConfig,
    context: StageContext,
    *,
    description: str = "training",
    ranks: Ranks = SINGLE,
    safeguards: Safeguards | None = None,
    hooks: Sequence[EvaluationHook] = (),
) -> dict[str, Any]:
    """Train the task's model for config.n_steps updates, resuming from context.state where it holds a state.

    Metrics go to the context's log: split "train" (loss per target in nats, grad_norm, lr, tokens so far and the
    task's own), "system" (what the machines made of it, meter.py), "validation" (what the task evaluates), one split a
    hook, and one line for every loss spike ("spikes") and every training state that could not be written
    ("checkpoints").

    Args:
        ranks: The processes that train together; each calls this with its piece of the model.
        hooks: Evaluation suites that run every so many updates.
    Returns:
        Numbers for the manifest: steps, tokens, targets, train_loss (over the last logged updates), validation,
        suites (the last values of each hook), tokens_per_second (of all processes) and system (meter.py).
    Raises:
        NumericsError: loss or gradient is not finite, or the loss diverges; the last good state remains.
        Preempted: SIGTERM or SIGUSR1 came; the state is saved.
    """
    keep_freed_memory()
    check_hooks(hooks)
    if ranks.is_writer and config.n_steps < FEW_UPDATES:
        context.reporter.warn(
            f"{description}: only {config.n_steps} updates, {config.n_warmup_steps} of them warm-up; for more, lower "
            "loop.batch_size, or raise loop.total_steps or the epochs"
        )
    optimizer = make_optimizer(task.model, config.optimizer)
    torch.manual_seed(derive_seed(context.seed, "training loop"))
    journal = Journal(context, ranks)
    state = _new_state(task, config, optimizer, journal, safeguards or Safeguards())
    speed, has_float8 = context.machine.speed, config.dtype == "float8"
    with (
        faster_blocks(task.model, speed, has_float8=has_float8),
        prefetching(task.micro_batches, n_steps=config.n_steps, is_on=speed.prefetch) as read,
        scheduled_collection(COLLECT_EVERY_STEPS) as collect,
        stop_requests() as request,
        state.watchdog,
        state.checkpoints,
    ):
        loop = _Loop(
            config=config,
            state=state,
            train_step=TrainStep(
                task=task,
                config=config,
                ranks=ranks,
                optimizer=optimizer,
                state=state,
                request=request,
                read=read,
            ),
            measurements=Measurements(task=task, config=config, state=state, journal=journal, hooks=hooks),
            journal=journal,
            request=request,
            collect=collect,
        )
        task.model.train()
        return loop.run(description)


def _new_state(
    task: TrainingTask,
    config: LoopConfig,
    optimizer: torch.optim.Optimizer,
    journal: Journal,
    safeguards: Safeguards,
) -> RunState:
    """A run that has done nothing yet, with what saves, measures and watches it."""
    folder, ranks = journal.context.state, journal.ranks
    flops = task.flops_per_token if isinstance(task, CountsFlops) else None
    device = next(task.model.parameters()).device
    return RunState(
        checkpoints=Checkpointer(
            folder,
            model=task.model,
            optimizer=optimizer,
            ranks=ranks,
            safeguards=safeguards,
            tell=journal.tell,
        ),
        meter=Meter(device, journal.context.machine.energy, flops_per_token=flops, n_devices=ranks.size),
        watchdog=Watchdog(folder, rank=ranks.rank, stall_seconds=safeguards.stall_seconds),
    )


@dataclass(slots=True, kw_only=True)
class _Loop:
    """Updates one after another, each with what is due after it."""

    config: LoopConfig
    state: RunState
    train_step: TrainStep
    measurements: Measurements
    journal: Journal
    request: StopRequest
    collect: Callable[[int], None]
    """Told of every update done."""
    results: dict[str, Any] = field(default_factory=dict)
    """Numbers for the manifest, so far."""

    def run(self, description: str) -> dict[str, Any]:
        """All updates that are still to do."""
        config, state, reporter = self.config, self.state, self.journal.context.reporter
        n_done = state.load() or 0
        self.journal.open(config, n_done=n_done, description=description)
        with reporter.track(description, config.n_steps, "step", completed=n_done) as tracker:
            while n_done < config.n_steps:
                n_after = self._advance(n_done)
                names = ("train_loss", "tokens_per_second")
                shown = {name: self.results[name] for name in names if name in self.results}
                tracker.advance(n_after - n_done, **shown)
                n_done = n_after
        totals = {
            "steps": config.n_steps,
            "tokens": state.interval.n_tokens_total,
            "targets": state.interval.n_targets_total,
        }
        system = state.meter.summary()
        return totals | self.results | {"tokens_per_second": system["tokens_per_second"], "system": system}

    def _advance(self, n_done: int) -> int:
        """One update with what is due after it; returns the updates done, fewer than before after a rollback."""
        spikes, state = self.config.spikes, self.state
        with state.meter.timing("update"):
            step = self.train_step(n_done)
        n_done += 1
        if step.spike is not None and spikes.action == "rollback" and n_done not in state.left_out:
            before = spike_response.roll_back(state, n_done, step.spike, config=spikes, journal=self.journal)
            if before is not None:
                return before
        if step.spike is not None:
            spike_response.record(n_done, step.spike, config=spikes, journal=self.journal)
        if step.update is not None:
            state.meter.add_tokens(step.update.n_tokens)
            state.interval.add(step.update)
        self._log_and_measure(n_done, step.update)
        self.collect(n_done)
        self._save(n_done, is_stopping=step.is_stop_requested)
        return n_done

    def _log_and_measure(self, n_done: int, update: Update | None) -> None:
        """What is due after this update; after the last one, everything."""
        config, is_last = self.config, n_done == self.config.n_steps
        if is_last or _is_due(n_done, config.log_every_steps):
            self.results |= self.journal.log(n_done, update, self.state)
        if is_last or _is_due(n_done, config.evaluate_every_steps):
            self.results["validation"] = self.measurements.evaluate(n_done)
        if suites := self.measurements.run_suites(n_done, is_last=is_last):
            self.results["suites"] = self.results.get("suites", {}) | suites

    def _save(self, n_done: int, *, is_stopping: bool) -> None:
        """A training state where one is due or the machine is wanted back; after the last update there is none.

        Raises:
            Preempted: a signal came; the state is on the disk.
        """
        if n_done == self.config.n_steps:
            return
        is_due = _is_due(n_done, self.config.checkpoint_every_steps) and self.state.watch.is_calm
        if is_due or is_stopping:
            self.state.save(n_done, waits=is_stopping)
        if is_stopping:
            name = self.request.name or "a signal to another process"
            raise Preempted(signal_name=name, done=f"update {n_done} of {self.config.n_steps}")


def _is_due(n_done: int, every: int | None) -> bool:
    return every is not None and n_done % every == 0
