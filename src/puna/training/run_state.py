"""What a training knows beside its weights: saved with every state, so that a resumed run continues the same."""

from dataclasses import asdict, dataclass, field

from puna.training.checkpoints import Checkpointer
from puna.training.interval import Interval
from puna.training.meter import Meter
from puna.training.spikes import LossWatch
from puna.training.watchdog import Watchdog

__all__ = ["RunState"]


@dataclass(slots=True, kw_only=True)
class RunState:
    """Sums, losses and decisions so far, with what saves, measures and watches the run."""

    checkpoints: Checkpointer
    meter: Meter
    watchdog: Watchdog
    interval: Interval = field(default_factory=Interval)
    watch: LossWatch = field(default_factory=LossWatch)
    left_out: list[int] = field(default_factory=list)
    """Updates, counted from 1, that are not made, because of a spike there."""
    n_rollbacks: int = 0

    def load(self) -> int | None:
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

    def save(self, n_done: int, *, waits: bool) -> None:
        """Write a training state after so many updates; with `waits`, return when it is on the disk."""
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
