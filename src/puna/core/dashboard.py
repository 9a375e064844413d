"""What a training looks like while it runs: loss as a small chart, rates, memory, the last checkpoint, warnings.

Shown below the progress bar on a terminal; elsewhere the reporter prints plain lines instead.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["Dashboard", "format_bytes", "sparkline"]

_LEVELS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_LEVELS = " ._-=+*%#"
MAX_LOSSES, MAX_WARNINGS = 4000, 3
MANY_LOSSES = 60
"""With more, the first tenth is left out of the chart: its fall would flatten all the rest."""
CHART_HEIGHT, MAX_WIDTH, MIN_WIDTH_OF_THREE = 4, 100, 80

Shown = float | int | str | None


class Dashboard:
    """The latest numbers of one training; give it rows of metrics and print it at any moment."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=MAX_LOSSES)
        self._held_out: float | None = None
        self._values: dict[str, Shown] = {}
        self._warnings: deque[str] = deque(maxlen=MAX_WARNINGS)
        self._checkpoint: tuple[int, float] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not (self._values or self._warnings)

    def update(self, split: str, values: Mapping[str, Shown]) -> None:
        """Take one row of metrics; the split "train" draws the chart, "validation" gives the held-out loss."""
        loss = values.get("loss")
        if split == "train" and isinstance(loss, int | float):
            self._losses.append(float(loss))
        if split == "validation" and isinstance(loss, int | float):
            self._held_out = float(loss)
        if split in ("train", "system"):
            self._values |= values

    def warn(self, text: str) -> None:
        """Keep a warning in sight; only the latest few stay."""
        self._warnings.append(text.removeprefix("WARNING: "))

    def saved(self, step: int) -> None:
        """A training state was written after this step."""
        if self._checkpoint is None or self._checkpoint[0] != step:
            self._checkpoint = (step, time.monotonic())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Panel]:
        if self.is_empty:
            return
        width = min(options.max_width, MAX_WIDTH)
        parts: list[Text | Table] = []
        losses = list(self._losses)
        losses = losses[len(losses) // 10 :] if len(losses) > MANY_LOSSES else losses
        if losses:
            levels = _ASCII_LEVELS if options.ascii_only else _LEVELS
            chart_width = max(8, width - 15)
            rows = sparkline(losses, chart_width, CHART_HEIGHT, levels)
            parts += _chart(rows, chart_width, high=max(losses), low=min(losses))
        parts += [self._table(width), Text.assemble(("last checkpoint ", "dim"), self._saved())]
        parts += [
            Text(f"! {text}", style="yellow", overflow="ellipsis", no_wrap=True) for text in self._warnings
        ]
        yield Panel(Group(*parts), title=self._title(), title_align="left", width=width, border_style="dim")

    def _title(self) -> str:
        if not self._losses:
            return "training"
        held_out = f", held out {self._held_out:.4g}" if self._held_out is not None else ""
        return f"loss {self._losses[-1]:.4g}{held_out}"

    def _table(self, width: int) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        cells, columns = self._cells(), 3 if width >= MIN_WIDTH_OF_THREE else 2
        for _ in range(columns):
            table.add_column(ratio=1, no_wrap=True)
        for start in range(0, len(cells), columns):
            row = cells[start : start + columns]
            table.add_row(*(Text.assemble((f"{name} ", "dim"), text) for name, text in row))
        return table

    def _cells(self) -> list[tuple[str, str]]:
        """Name and text of every number there is, in a fixed order."""
        v = self._values
        cells: list[tuple[str, str | None]] = [
            ("learning rate", _number(v.get("lr"), ".2e")),
            ("gradient norm", _number(v.get("grad_norm"), ".3g")),
            ("tokens", _number(v.get("tokens"), ",.0f")),
            ("tokens/s", _number(v.get("tokens_per_second"), ",.0f")),
            ("MFU", _percent(v.get("mfu")) if "mfu" in v else None),
            ("memory", _bytes(v.get("rss_bytes"))),
            ("GPU memory", _bytes(v.get("cuda_peak_bytes"))),
            ("waiting for data", _percent(v.get("data_fraction")) if "data_fraction" in v else None),
            ("saving", _percent(v.get("checkpoint_fraction")) if "checkpoint_fraction" in v else None),
            ("energy", _number(v.get("energy_kwh"), ",.4g", " kWh")),
        ]
        return [(name, text) for name, text in cells if text is not None]

    def _saved(self) -> str:
        if self._checkpoint is None:
            return "none yet"
        step, when = self._checkpoint
        seconds = time.monotonic() - when
        ago = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        return f"step {step:,}, {ago} ago"


def sparkline(values: Sequence[float], width: int, height: int, levels: str = _LEVELS) -> list[str]:
    """A chart of text, highest row first; many values are averaged and few are drawn wider, to fill the width.

    Args:
        levels: Characters from empty to full.
    """
    n = len(values)
    chunks = [values[i * n // width : max((i + 1) * n // width, i * n // width + 1)] for i in range(width)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    low, high = min(means), max(means)
    steps = len(levels) - 1
    scale = (height * steps - 1) / (high - low) if high > low else 0.0
    heights = [1 + round((mean - low) * scale) for mean in means]
    return [
        "".join(levels[min(steps, max(0, h - row * steps))] for h in heights)
        for row in range(height - 1, -1, -1)
    ]


def format_bytes(n_bytes: float) -> str:
    """`812 MiB` or `3.4 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def _chart(rows: Sequence[str], width: int, *, high: float, low: float) -> list[Text]:
    """The chart with its highest and lowest loss written beside it."""
    labels = [f"{high:>8.4g} ", *[" " * 9] * (len(rows) - 2), f"{low:>8.4g} "]
    return [
        Text.assemble((label, "dim"), (row.ljust(width), "cyan"))
        for label, row in zip(labels, rows, strict=True)
    ]


def _number(value: Shown, form: str, unit: str = "") -> str | None:
    return f"{value:{form}}{unit}" if isinstance(value, int | float) else None


def _percent(value: Shown) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "unknown"


def _bytes(value: Shown) -> str | None:
    return format_bytes(value) if isinstance(value, int | float) else None
