"""The one training loop: pretraining, supervised fine-tuning and reward models differ in their task only.

An update sums the losses of its micro-batches and divides once by all their targets, so the cut into
micro-batches never changes what is learned. Killed at any moment, a run continues to the same bits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from puna.core.artifacts import StageContext
from puna.core.config import resolve
from puna.core.errors import DataError, NumericsError
from puna.core.seeding import derive_seed
from puna.core.trackers import open_trackers
from puna.training.config import LoopConfig
from puna.training.hooks import EvaluationHook, check_hooks, run_hooks
from puna.training.meter import Meter
from puna.training.optimizer import average_and_clip_gradients, make_optimizer, set_lr
from puna.training.resume import load_state, save_state

__all__ = ["LoopConfig", "LossSum", "TrainingTask", "run"]


@dataclass(frozen=True, slots=True)
class LossSum:
    """The loss of one micro-batch, summed and not averaged."""

    sum: Tensor
    """Nats over all targets, with a gradient."""
    n_targets: int
    """Tokens, pairs or whatever the mean is over."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Other sums over the targets, such as pairs ranked rightly; logged divided by n_targets."""
    n_tokens: int | None = None
    """Tokens the model read, for the rate shown; None means n_targets."""


@runtime_checkable
class TrainingTask(Protocol):
    """What is learned from what; the loop knows only this."""

    @property
    def model(self) -> nn.Module:
        """The module whose trainable parameters are updated."""
        ...

    def micro_batches(self, step: int) -> Sequence[Any]:
        """The batches of one update, a function of seed and step alone: resumption asks for any step."""
        ...

    def loss(self, batch: Any) -> LossSum:
        """Forward pass of one micro-batch."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Held-out measurements; called without gradients."""
        ...


@runtime_checkable
class CountsFlops(Protocol):
    """A task that knows what a token costs: MFU is measured for it."""

    @property
    def flops_per_token(self) -> float:
        """Operations of forward and backward pass, model/accounting.training_flops_per_token."""
        ...


@dataclass(slots=True)
class _Progress:
    """Sums since the last logged line, and totals; saved, so that a resumed run logs the same numbers."""

    loss: float = 0.0
    n_targets: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    n_tokens_total: int = 0
    n_targets_total: int = 0
    meter: dict[str, float | None] = field(default_factory=dict)

    def add(self, update: "_Update") -> None:
        self.loss += update.loss
        self.n_targets += update.n_targets
        self.n_tokens_total += update.n_tokens
        self.n_targets_total += update.n_targets
        for name, value in update.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        sums = {"loss": self.loss} | self.metrics
        return {name: value / self.n_targets for name, value in sums.items()}

    def start_interval(self) -> None:
        self.loss, self.n_targets, self.metrics = 0.0, 0, {}


@dataclass(frozen=True, slots=True)
class _Update:
    """What one update did; sums over its targets."""

    loss: float
    n_targets: int
    n_tokens: int
    metrics: dict[str, float]
    grad_norm: float
    lr: float


def run(
    task: TrainingTask,
    config: LoopConfig,
    context: StageContext,
    *,
    description: str = "training",
    hooks: Sequence[EvaluationHook] = (),
) -> dict[str, Any]:
    """Train the task's model for config.n_steps updates, resuming from context.state where it holds a state.

    Metrics go to the context's log: split "train" (loss per target in nats, grad_norm, lr, tokens so far and the
    task's own), "system" (what this machine made of it, meter.py), "validation" (what the task evaluates), and one
    for each hook.

    Args:
        hooks: Evaluation suites that run every so many updates.
    Returns:
        Numbers for the manifest: steps, tokens, targets, train_loss (over the last logged updates), validation,
        tokens_per_second (of this process), system (meter.py) and the last values of each hook.
    Raises:
        NumericsError: loss or gradient is not finite; nothing was updated and the last state remains.
    """
    check_hooks(hooks)
    optimizer = make_optimizer(task.model, config.optimizer)
    torch.manual_seed(derive_seed(context.seed, "training loop"))
    resumed = load_state(context.state, model=task.model, optimizer=optimizer)
    first, progress = (resumed.step, _Progress(**resumed.extra)) if resumed else (0, _Progress())
    context.metrics.truncate_after(first)
    context.metrics.attach(
        open_trackers(config.tracking, name=description, state=context.state, settings=resolve(config))
    )
    meter, results = _meter(task, config, progress), dict[str, Any]()
    task.model.train()
    with context.reporter.track(description, config.n_steps, "step", completed=first) as tracker:
        for n_done in range(first + 1, config.n_steps + 1):
            with meter.timing("update"):
                update = _update(task, optimizer, config, n_done - 1, meter)
            meter.add_tokens(update.n_tokens)
            progress.add(update)
            is_last = n_done == config.n_steps
            if is_last or _is_due(n_done, config.log_every_steps):
                results |= _log(context, n_done, progress, update, meter)
            if is_last or _is_due(n_done, config.evaluate_every_steps):
                with meter.timing("evaluation"):
                    results["validation"] = _evaluate(task, config, context, n_done)
            with meter.timing("evaluation"):
                results |= run_hooks(
                    hooks,
                    task.model,
                    step=n_done,
                    is_last=is_last,
                    precision=lambda: _precision(task.model, config),
                    metrics=context.metrics,
                )
            if not is_last and _is_due(n_done, config.checkpoint_every_steps):
                with meter.timing("checkpoint"):
                    saved = asdict(replace(progress, meter=meter.state()))
                    save_state(context.state, model=task.model, optimizer=optimizer, step=n_done, extra=saved)
                context.reporter.saved(n_done)
            shown = {name: results[name] for name in ("train_loss", "tokens_per_second") if name in results}
            tracker.advance(**shown)
    totals = {"steps": config.n_steps, "tokens": progress.n_tokens_total, "targets": progress.n_targets_total}
    system = meter.summary()
    return totals | results | {"tokens_per_second": system["tokens_per_second"], "system": system}


def _meter(task: TrainingTask, config: LoopConfig, progress: _Progress) -> Meter:
    flops = task.flops_per_token if isinstance(task, CountsFlops) else None
    device = next(task.model.parameters()).device
    return Meter(device, config.energy, flops_per_token=flops, earlier=progress.meter)


def _is_due(n_done: int, every: int | None) -> bool:
    return every is not None and n_done % every == 0


def _update(
    task: TrainingTask, optimizer: torch.optim.Optimizer, config: LoopConfig, step: int, meter: Meter
) -> _Update:
    """One optimizer update; reads the device once."""
    lr = config.lr(step)
    set_lr(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    n_targets = n_tokens = 0
    sums: dict[str, Tensor | float] = {}
    with meter.timing("data"):
        batches = task.micro_batches(step)
    for batch in batches:
        with _precision(task.model, config):
            loss = task.loss(batch)
        loss.sum.backward()
        n_targets += loss.n_targets
        n_tokens += loss.n_targets if loss.n_tokens is None else loss.n_tokens
        for name, value in {"loss": loss.sum.detach(), **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + value
    if n_targets == 0:
        raise DataError(
            where=f"update {step + 1}",
            expected="at least one target to learn",
            got="none",
            fix="Check the loss masks of the training data.",
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = average_and_clip_gradients(
        parameters, n_targets=n_targets, max_norm=config.optimizer.max_grad_norm
    )
    values = [torch.as_tensor(value, dtype=torch.float32, device=norm.device) for value in sums.values()]
    grad_norm, *metrics = torch.stack([norm, *values]).tolist()
    named = dict(zip(sums, metrics, strict=True))
    _require_finite(named["loss"], grad_norm, step)
    optimizer.step()
    return _Update(named.pop("loss"), n_targets, n_tokens, named, grad_norm, lr)


def _require_finite(loss: float, grad_norm: float, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise NumericsError(
            where=f"update {step + 1}",
            expected="a finite loss and gradient",
            got=f"summed loss {loss}, gradient norm {grad_norm}",
            fix="Nothing was updated and the last training state is kept. Lower peak_lr, lengthen the warm-up, "
            "or inspect this batch.",
        )


def _precision(model: nn.Module, config: LoopConfig) -> torch.autocast:
    device_type = next(model.parameters()).device.type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=config.dtype == "bfloat16")


def _evaluate(task: TrainingTask, config: LoopConfig, context: StageContext, n_done: int) -> dict[str, float]:
    task.model.eval()
    with torch.no_grad(), _precision(task.model, config):
        values = task.evaluate()
    task.model.train()
    if values:
        context.metrics.write(n_done, "validation", **values)
        context.reporter.show("validation", values)
    return values


def _log(
    context: StageContext, n_done: int, progress: _Progress, update: _Update, meter: Meter
) -> dict[str, float | None]:
    means, lap = progress.means(), meter.lap()
    row = means | {"grad_norm": update.grad_norm, "lr": update.lr, "tokens": progress.n_tokens_total}
    for split, values in (("train", row), ("system", lap)):
        context.metrics.write(n_done, split, **values)
        context.reporter.show(split, values)
    progress.start_interval()
    return {"train_loss": means["loss"], "tokens_per_second": lap["tokens_per_second"]}
