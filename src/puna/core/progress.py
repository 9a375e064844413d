"""Progress for people: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

Everything goes to standard error, so that standard output stays one JSON object for scripts.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from puna.core.dashboard import Dashboard

__all__ = ["Reporter", "Tracker", "quiet"]

Field = float | int | str


def format_fields(fields: dict[str, Field]) -> str:
    """`loss 2.31, tok/s 5,120`: floats to four significant digits, large numbers with separators."""

    def text(value: Field) -> str:
        if isinstance(value, str):
            return value
        return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.4g}"

    return ", ".join(f"{name.replace('_per_', '/')} {text(value)}" for name, value in fields.items())


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3:05` or `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Tracker:
    """Counts one long piece of work; made by `Reporter.track`."""

    def __init__(self, reporter: "Reporter", description: str, total: int | None, unit: str, completed: int):
        self.description = description
        self.total = total
        self.unit = unit
        self.completed = self._first = completed
        self._reporter = reporter
        self._started = self._printed = time.monotonic()
        self._fields: dict[str, Field] = {}
        self._task: TaskID | None = None

    def advance(self, n: int = 1, **fields: Field) -> None:
        """Count n more units done and show the latest values, such as loss=2.31."""
        self.completed += n
        self._fields |= fields
        bars = self._reporter.bars
        if bars is not None and self._task is not None:
            bars.update(self._task, completed=self.completed, status=self._status())
        elif time.monotonic() - self._printed >= self._reporter.interval_seconds:
            self._print()

    def _rate(self) -> float:
        return (self.completed - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _status(self) -> str:
        rate = self._rate()
        parts = [f"{rate:.1f} {self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/{self.unit}"]
        if self._fields:
            parts.append(format_fields(self._fields))
        return ", ".join(parts)

    def _print(self) -> None:
        self._printed = time.monotonic()
        share = f"/{self.total}" if self.total else ""
        left = ""
        if self.total and self._rate() and self.completed < self.total:
            left = f", {format_seconds((self.total - self.completed) / self._rate())} left"
        self._reporter.log(f"{self.description} {self.completed}{share} {self.unit}, {self._status()}{left}")

    def _open(self) -> None:
        bars = self._reporter.bars
        if bars is not None:
            self._task = bars.add_task(
                self.description, total=self.total, completed=self.completed, status=""
            )

    def _close(self) -> None:
        bars = self._reporter.bars
        if bars is not None and self._task is not None:
            bars.remove_task(self._task)
        if time.monotonic() - self._started >= self._reporter.interval_seconds:
            self._print()


class _Bars(Progress):
    """The bars, and below them what the innermost training shows of itself."""

    dashboard: Dashboard | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.dashboard is not None:
            yield self.dashboard


class Reporter:
    """Tells a person what runs, how fast, and how long it will still take."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        is_silent: bool = False,
        interval_seconds: float = 10.0,
        prefix: str = "",
    ) -> None:
        """Write to the console (standard error when None); plain lines at most every interval.

        Args:
            prefix: Begins every line; stages then have no numbers, as another reporter counts them.
        """
        self.interval_seconds = interval_seconds
        self.is_silent = is_silent
        self.bars: _Bars | None = None
        self._prefix = prefix
        self._console = console or Console(stderr=True)
        self._n_stages = 0
        self._n_tracks = 0
        self._is_in_stage = False

    def log(self, text: str) -> None:
        """Say one line."""
        if not self.is_silent:
            self._console.print(f"{self._prefix}{text}", markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say one line that asks for attention, and keep it in sight where there is a dashboard."""
        self.log(text)
        if self.bars is not None and self.bars.dashboard is not None:
            self.bars.dashboard.warn(text)

    def show(self, split: str, values: Mapping[str, Field | None]) -> None:
        """Show one row of a training's metrics; on a terminal only, where a dashboard opens with the first."""
        if self.bars is not None:
            if self.bars.dashboard is None:
                self.bars.dashboard = Dashboard()
            self.bars.dashboard.update(split, values)

    def saved(self, step: int) -> None:
        """Note that a training state was written after this step."""
        if self.bars is not None and self.bars.dashboard is not None:
            self.bars.dashboard.saved(step)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage by number and say its seconds when it is done; one inside another stays silent."""
        if self._is_in_stage:
            yield
            return
        self._n_stages += 1
        title, started = name if self._prefix else f"[{self._n_stages}] {name}", time.monotonic()
        self.log(title)
        self._is_in_stage = True
        try:
            yield
        finally:
            self._is_in_stage = False
        self.log(f"{title}: {format_seconds(time.monotonic() - started)}")

    @contextmanager
    def track(
        self, description: str, total: int | None, unit: str = "it", *, completed: int = 0
    ) -> Iterator[Tracker]:
        """Follow work of `total` units (None: unknown), of which `completed` were done in an earlier run."""
        if self._n_tracks == 0 and self._console.is_terminal and not self.is_silent:
            self.bars = _Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self.bars.start()
        self._n_tracks += 1
        tracker = Tracker(self, description, total, unit, completed)
        tracker._open()
        try:
            yield tracker
        finally:
            tracker._close()
            self._n_tracks -= 1
            if self._n_tracks == 0 and self.bars is not None:
                self.bars.stop()
                self.bars = None


def quiet() -> Reporter:
    """A reporter that says nothing."""
    return Reporter(is_silent=True)
