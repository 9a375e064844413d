"""Sums between two lines of metrics."""

from dataclasses import dataclass, field

__all__ = ["Interval", "Update"]


@dataclass(frozen=True, slots=True)
class Update:
    """What one update did; sums over its targets, on all ranks."""

    loss: float
    n_targets: int
    n_tokens: int
    metrics: dict[str, float]
    grad_norm: float
    lr: float

    @property
    def mean_loss(self) -> float:
        """Nats per target."""
        return self.loss / self.n_targets


@dataclass(slots=True)
class Interval:
    """Sums since the last logged line, and totals; saved, so that a resumed run logs the same numbers."""

    loss: float = 0.0
    n_targets: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    n_tokens_total: int = 0
    n_targets_total: int = 0

    def add(self, update: Update) -> None:
        """Count one update."""
        self.loss += update.loss
        self.n_targets += update.n_targets
        self.n_tokens_total += update.n_tokens
        self.n_targets_total += update.n_targets
        for name, value in update.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Per target; nothing where no update was made since the last line."""
        if not self.n_targets:
            return {}
        sums = {"loss": self.loss} | self.metrics
        return {name: value / self.n_targets for name, value in sums.items()}

    def start(self) -> None:
        """Begin the next line."""
        self.loss, self.n_targets, self.metrics = 0.0, 0, {}
