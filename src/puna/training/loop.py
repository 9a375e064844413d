"""The one training loop: pretraining, supervised fine-tuning and reward models differ in their task only.

An update sums the losses of its micro-batches and divides once by all their targets, so the cut into
micro-batches never changes what is learned. Killed at any moment, a run continues to the same bits.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from puna.core.allocator import keep_freed_memory
from puna.core.artifacts import StageContext
from puna.core.errors import DataError, NumericsError
from puna.core.seeding import derive_seed
from puna.training.config import LoopConfig
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


@dataclass(slots=True)
class _Progress:
    """Sums since the last logged line, and totals; saved, so that a resumed run logs the same numbers."""

    loss: float = 0.0
    n_targets: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    n_tokens_total: int = 0
    n_targets_total: int = 0

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


class _Clock:
    """Tokens per second of the updates alone, without evaluation and saving; never used for a decision."""

    def __init__(self) -> None:
        self._seconds, self._n_tokens = 0.0, 0
        self._seconds_total, self._n_tokens_total = 0.0, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def add(self, n_tokens: int) -> None:
        self._n_tokens += n_tokens

    def lap(self) -> float:
        rate = self._n_tokens / max(self._seconds, 1e-9)
        self._seconds_total += self._seconds
        self._n_tokens_total += self._n_tokens
        self._seconds, self._n_tokens = 0.0, 0
        return rate

    @property
    def mean(self) -> float:
        return self._n_tokens_total / max(self._seconds_total, 1e-9)


def run(
    task: TrainingTask, config: LoopConfig, context: StageContext, *, description: str = "training"
) -> dict[str, Any]:
    """Train the task's model for config.n_steps updates, resuming from context.state where it holds a state.

    Metrics go to the context's log: split "train" (loss per target in nats, grad_norm, lr,
    tokens_per_second and the task's own) and split "validation" (what the task evaluates).

    Returns:
        Numbers for the manifest: steps, tokens, targets, train_loss (over the last logged updates),
        validation and tokens_per_second (of this process).
    Raises:
        NumericsError: loss or gradient is not finite; nothing was updated and the last state remains.
    """
    keep_freed_memory()
    optimizer = make_optimizer(task.model, config.optimizer)
    torch.manual_seed(derive_seed(context.seed, "training loop"))
    resumed = load_state(context.state, model=task.model, optimizer=optimizer)
    first, progress = (resumed.step, _Progress(**resumed.extra)) if resumed else (0, _Progress())
    context.metrics.truncate_after(first)
    clock, results = _Clock(), dict[str, Any]()
    task.model.train()
    with context.reporter.track(description, config.n_steps, "step", completed=first) as tracker:
        for n_done in range(first + 1, config.n_steps + 1):
            with clock.running():
                update = _update(task, optimizer, config, n_done - 1)
            clock.add(update.n_tokens)
            progress.add(update)
            is_last = n_done == config.n_steps
            if is_last or _is_due(n_done, config.log_every_steps):
                results |= _log(context, n_done, progress, update, clock)
            if is_last or _is_due(n_done, config.evaluate_every_steps):
                results["validation"] = _evaluate(task, config, context, n_done)
            if not is_last and _is_due(n_done, config.checkpoint_every_steps):
                saved = asdict(progress)
                save_state(context.state, model=task.model, optimizer=optimizer, step=n_done, extra=saved)
            shown = {name: results[name] for name in ("train_loss", "tokens_per_second") if name in results}
            tracker.advance(**shown)
    totals = {"steps": config.n_steps, "tokens": progress.n_tokens_total, "targets": progress.n_targets_total}
    return totals | results | {"tokens_per_second": clock.mean}


def _is_due(n_done: int, every: int | None) -> bool:
    return every is not None and n_done % every == 0


def _update(task: TrainingTask, optimizer: torch.optim.Optimizer, config: LoopConfig, step: int) -> _Update:
    """One optimizer update; reads the device once."""
    lr = config.lr(step)
    set_lr(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    n_targets = n_tokens = 0
    sums: dict[str, Tensor | float] = {}
    for batch in task.micro_batches(step):
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
    return values


def _log(
    context: StageContext, n_done: int, progress: _Progress, update: _Update, clock: _Clock
) -> dict[str, float]:
    means, rate = progress.means(), clock.lap()
    context.metrics.write(
        n_done, "train", **means, grad_norm=update.grad_norm, lr=update.lr, tokens_per_second=rate
    )
    progress.start_interval()
    return {"train_loss": means["loss"], "tokens_per_second": rate}
