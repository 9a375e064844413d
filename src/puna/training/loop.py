"""The one training loop: pretraining, supervised fine-tuning and reward models differ in their task only.

An update sums the losses of its micro-batches, on all processes, and divides once by all their targets, so neither the
cut into micro-batches nor the number of processes changes what is learned. Killed at any moment, a run continues to
the same bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from puna.core.allocator import keep_freed_memory
from puna.core.artifacts import StageContext
from puna.core.config import resolve
from puna.core.errors import NumericsError, Preempted, StorageError
from puna.core.seeding import derive_seed
from puna.core.trackers import open_trackers
from puna.training.checkpoints import Checkpointer, Safeguards
from puna.training.config import LoopConfig
from puna.training.diagnosis import not_finite
from puna.training.gradients import precision, sum_gradients
from puna.training.hooks import EvaluationHook, check_hooks, run_hooks
from puna.training.interval import Interval, Update
from puna.training.meter import Meter
from puna.training.optimizer import make_optimizer, set_lr
from puna.training.parallel.ranks import SINGLE, Ranks
from puna.training.signals import StopRequest, stop_requests
from puna.training.speed import faster_blocks, prefetching, scheduled_collection
from puna.training.spikes import DIVERGED_UPDATES, LossWatch, Spike
from puna.training.task import CountsFlops, LossSum, TrainingTask
from puna.training.watchdog import Watchdog

__all__ = ["LoopConfig", "LossSum", "TrainingTask", "run"]


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
    optimizer = make_optimizer(task.model, config.optimizer)
    torch.manual_seed(derive_seed(context.seed, "training loop"))
    safeguards = safeguards or Safeguards()

    def tell(text: str) -> None:
        if ranks.is_writer:
            context.reporter.warn(text)

    checkpoints = Checkpointer(
        context.state,
        model=task.model,
        optimizer=optimizer,
        ranks=ranks,
        safeguards=safeguards,
        tell=tell,
    )
    watchdog = Watchdog(context.state, rank=ranks.rank, stall_seconds=safeguards.stall_seconds)
    flops = task.flops_per_token if isinstance(task, CountsFlops) else None
    device = next(task.model.parameters()).device
    meter = Meter(device, context.machine.energy, flops_per_token=flops, n_devices=ranks.size)
    speed, has_float8 = context.machine.speed, config.dtype == "float8"
    with (
        faster_blocks(task.model, speed, has_float8=has_float8),
        prefetching(task.micro_batches, n_steps=config.n_steps, is_on=speed.prefetch) as read,
        scheduled_collection(speed.collect_every_steps) as collect,
        stop_requests() as request,
        watchdog,
        checkpoints,
    ):
        return _Training(
            task,
            config,
            context,
            ranks,
            optimizer,
            checkpoints,
            watchdog,
            request,
            meter,
            hooks,
            description,
            read,
            collect,
        ).run()


@dataclass(slots=True)
class _Training:
    """One run of the loop. `interval`, `watch` and `left_out` are saved with every state."""

    task: TrainingTask
    config: LoopConfig
    context: StageContext
    ranks: Ranks
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpointer
    watchdog: Watchdog
    request: StopRequest
    meter: Meter
    hooks: Sequence[EvaluationHook]
    description: str
    read: Callable[[int], Sequence[Any]]
    """The task's micro_batches, perhaps read ahead."""
    collect: Callable[[int], None]
    """Told of every update done."""
    interval: Interval = field(default_factory=Interval)
    watch: LossWatch = field(default_factory=LossWatch)
    left_out: list[int] = field(default_factory=list)
    """Updates that are not made, because of a spike there."""
    n_rollbacks: int = 0
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """All updates that are still to do."""
        config, context = self.config, self.context
        n_done = self._load() or 0
        if self.ranks.is_writer:
            context.metrics.truncate_after(n_done)
            context.metrics.attach(
                open_trackers(
                    context.machine.tracking,
                    name=self.description,
                    state=context.state,
                    settings=resolve(config),
                )
            )
        self.task.model.train()
        with context.reporter.track(self.description, config.n_steps, "step", completed=n_done) as tracker:
            while n_done < config.n_steps:
                n_after = self._advance(n_done)
                names = ("train_loss", "tokens_per_second")
                shown = {name: self.results[name] for name in names if name in self.results}
                tracker.advance(n_after - n_done, **shown)
                n_done = n_after
        totals = {
            "steps": config.n_steps,
            "tokens": self.interval.n_tokens_total,
            "targets": self.interval.n_targets_total,
        }
        system = self.meter.summary()
        return totals | self.results | {"tokens_per_second": system["tokens_per_second"], "system": system}

    def _advance(self, n_done: int) -> int:
        """One update with what is due after it; returns the updates done, fewer than before after a rollback."""
        config = self.config
        with self.meter.timing("update"):
            update, spike, is_stopping = self._update(n_done)
        n_done += 1
        if spike is not None and config.spikes.action == "rollback" and n_done not in self.left_out:
            before = self._roll_back(n_done, spike)
            if before is not None:
                return before
        if spike is not None:
            self._record(n_done, spike)
        if update is not None:
            self.meter.add_tokens(update.n_tokens)
            self.interval.add(update)
        is_last = n_done == config.n_steps
        if is_last or _is_due(n_done, config.log_every_steps):
            self._log(n_done, update)
        if is_last or _is_due(n_done, config.evaluate_every_steps):
            self._evaluate(n_done)
        self._run_hooks(n_done, is_last=is_last)
        self.collect(n_done)
        is_due = _is_due(n_done, config.checkpoint_every_steps) and self.watch.is_calm
        if not is_last and (is_due or is_stopping):
            self._save(n_done, waits=is_stopping)
        if not is_last and is_stopping:
            name = self.request.name or "a signal to another process"
            raise Preempted(signal_name=name, done=f"update {n_done} of {config.n_steps}")
        return n_done

    def _update(self, step: int) -> tuple[Update | None, Spike | None, bool]:
        """One optimizer update, or none where the loss is a spike to be left out; reads the device once."""
        config, lr = self.config, self.config.lr(step)
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        summed = sum_gradients(
            self.task, config, step, self.ranks, self.watchdog, self.meter, self.request, self.read
        )
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.ranks.average_and_clip(
            parameters, n_targets=summed.n_targets, max_norm=config.optimizer.max_grad_norm
        )
        values = [torch.as_tensor(v, dtype=torch.float32, device=norm.device) for v in summed.sums.values()]
        grad_norm, *metrics = torch.stack([norm, *values]).tolist()
        named = dict(zip(summed.sums, metrics, strict=True))
        loss = named.pop("loss")
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self.checkpoints.wait()
            raise not_finite(
                self.task,
                config,
                step,
                self.ranks,
                loss=loss,
                grad_norm=grad_norm,
                state="the last training state is kept",
            )
        if step + 1 in self.left_out:
            spike: Spike | None = Spike(
                loss / summed.n_targets, self.watch.mean, math.sqrt(self.watch.variance)
            )
        else:
            spike = self._judge(loss / summed.n_targets, step)
        if spike is not None and config.spikes.action != "none":
            return None, spike, summed.is_stop_requested
        self.optimizer.step()
        update = Update(loss, summed.n_targets, summed.n_tokens, named, grad_norm, lr)
        return update, spike, summed.is_stop_requested

    def _judge(self, loss: float, step: int) -> Spike | None:
        """A divergence shows one update late: the state before its first loss holds the weights that gave it."""
        try:
            return self.watch.spike(loss, self.config.spikes)
        except NumericsError:
            self.checkpoints.distrust(step + 1 - DIVERGED_UPDATES)
            raise

    def _roll_back(self, n_done: int, spike: Spike) -> int | None:
        """Go back to the last training state; the batches up to this one are left out on the way.

        Returns:
            The update it went back to; None where there is no state yet, and only this update is left out.
        """
        config = self.config.spikes
        left_out = [*self.left_out, *range(max(1, n_done - config.n_skipped_batches + 1), n_done + 1)]
        n_rollbacks = self.n_rollbacks + 1
        if n_rollbacks > config.max_rollbacks:
            raise NumericsError(
                where=f"update {n_done}",
                expected=f"at most {config.max_rollbacks} rollbacks",
                got=f"another loss spike of {spike.loss:.4g} nats where {spike.expected:.4g} is expected",
                fix="The last training state is kept. Lower peak_lr, or inspect the data.",
            )
        before = self._load()
        if before is None:
            return None
        self.left_out, self.n_rollbacks = sorted({*self.left_out, *left_out}), n_rollbacks
        self._tell(
            f"loss spike at update {n_done}: {spike.loss:.4g} nats where {spike.expected:.4g} is expected; "
            f"back to update {before}, leaving out {len(left_out)} batches on the way"
        )
        if self.ranks.is_writer:
            self.context.metrics.truncate_after(before)
        return before

    def _load(self) -> int | None:
        """Updates done in the newest whole state, which is put into place; None where there is none."""
        self.watchdog.note("loading the training state")
        resumed = self.checkpoints.load()
        if resumed is None:
            return None
        self.interval = Interval(**resumed.extra["interval"])
        self.watch = LossWatch(**resumed.extra["watch"])
        self.left_out, self.n_rollbacks = resumed.extra["left_out"], resumed.extra["n_rollbacks"]
        if "meter" in resumed.extra:  # not in states that an older puna wrote
            self.meter.go_on_from(resumed.extra["meter"])
        return resumed.step

    def _save(self, n_done: int, *, waits: bool) -> None:
        self.watchdog.note(f"copying the training state of update {n_done}")
        extra = {
            "interval": asdict(self.interval),
            "watch": asdict(self.watch),
            "left_out": self.left_out,
            "n_rollbacks": self.n_rollbacks,
            "meter": self.meter.state(),
        }
        with self.meter.timing("checkpoint"):
            self.checkpoints.save(n_done, extra, waits=waits)

    def _evaluate(self, n_done: int) -> None:
        self.watchdog.note(f"held-out measurements after update {n_done}")
        model = self.task.model
        model.eval()
        with self.meter.timing("evaluation"), torch.no_grad(), precision(model, self.config):
            values = self.task.evaluate()
        self.ranks.after_evaluation(model)
        model.train()
        if values:
            self._write(n_done, "validation", **values)
        self.results["validation"] = values

    def _run_hooks(self, n_done: int, *, is_last: bool) -> None:
        if not self.hooks:
            return
        self.watchdog.note(f"evaluation suites after update {n_done}")
        model = self.task.model
        with self.meter.timing("evaluation"):
            measured = run_hooks(
                self.hooks,
                model,
                step=n_done,
                is_last=is_last,
                precision=lambda: precision(model, self.config),
                write=self._write,
            )
        self.results["suites"] = self.results.get("suites", {}) | measured
        self.ranks.after_evaluation(model)

    def _log(self, n_done: int, update: Update | None) -> None:
        means, lap = self.interval.means(), self.meter.lap()
        if update is not None:
            means |= {"grad_norm": update.grad_norm, "lr": update.lr}
        self._write(n_done, "train", **means, tokens=self.interval.n_tokens_total)
        self._write(n_done, "system", **lap)
        if self.ranks.is_writer and self.checkpoints.last_written is not None:
            self.context.reporter.saved(self.checkpoints.last_written)
        self.interval.start()
        self.results |= {"tokens_per_second": lap["tokens_per_second"]}
        if "loss" in means:
            self.results["train_loss"] = means["loss"]
        for step, reason in self.checkpoints.failures:
            self._write(n_done, "checkpoints", failed_step=step, reason=reason)
        self.checkpoints.failures.clear()

    def _record(self, n_done: int, spike: Spike) -> None:
        action = self.config.spikes.action
        self._write(n_done, "spikes", **asdict(spike), action=action)
        done = "recorded" if action == "none" else "this update is left out"
        self._tell(
            f"loss spike at update {n_done}: {spike.loss:.4g} nats where {spike.expected:.4g} is expected; {done}"
        )

    def _write(self, n_done: int, split: str, **values: float | str | None) -> None:
        """One line of metrics by one process; a full disk is told and stops nothing, as what waits is written later."""
        if not self.ranks.is_writer:
            return
        self.context.reporter.show(split, values)
        try:
            self.context.metrics.write(n_done, split, **values)
        except StorageError as error:
            self._tell(f"WARNING: metrics of update {n_done} wait for disk space: {error.got}")

    def _tell(self, text: str) -> None:
        if self.ranks.is_writer:
            self.context.reporter.warn(text)


def _is_due(n_done: int, every: int | None) -> bool:
    return every is not None and n_done % every == 0
