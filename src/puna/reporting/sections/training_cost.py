"""What pretraining cost: speed, MFU, where the time went, memory, energy and carbon (§2.2.1, Table 2)."""

from typing import Any

from puna.reporting.blocks import DASH, Cell, Section, Table, percent, plain, seconds
from puna.reporting.run_folder import RunFolder

__all__ = ["training_cost"]

LEAST = 0.001
"""kWh or kg; a smaller estimate is noise."""


def training_cost(run: RunFolder) -> Section:
    """One row for every model whose training kept account of itself."""
    head = ("training-cost", "What training cost", "Section 2.2.1, Table 2")
    found = {a.name: a.metrics["system"] for a in run.artifacts if isinstance(a.metrics.get("system"), dict)}
    if not found:
        return Section.absent(*head, "no training that kept account of its time yet")
    return Section(*head, (_speed(found), _energy(found)), found)


def _speed(found: dict[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(name),
            plain(system.get("tokens_per_second"), digits=0),
            percent(system.get("mfu")),
            Cell(seconds(system["seconds"]["wall"])),
            *(percent(_share(system["seconds"], part)) for part in ("data", "evaluation", "checkpoint")),
            _gibibytes(system.get("cuda_peak_bytes") or system.get("peak_rss_bytes")),
        )
        for name, system in found.items()
    )
    columns = (
        "Training",
        "Tokens/s",
        "MFU",
        "Time",
        "waiting for data",
        "measuring",
        "saving",
        "Peak memory",
    )
    caption = (
        "Speed of the updates, MFU where the device's peak is known, and the shares of the time that were not spent "
        "on updates. Memory is the GPU's where there is one."
    )
    return Table(caption, columns, rows)


def _share(by_part: dict[str, float], part: str) -> float:
    return by_part[part] / max(by_part["wall"], 1e-9)


def _energy(found: dict[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(name),
            _quantity(system["energy"]["kwh"], "kWh"),
            _quantity(_kilograms(system["energy"]["tco2eq"]), "kg"),
            Cell(f"{system['energy']['pue']:g}"),
            Cell(f"{system['energy']['grid_kg_per_kwh']:g}"),
            Cell(system["energy"]["source"]),
        )
        for name, system in found.items()
    )
    columns = ("Training", "Energy", "CO2eq", "PUE", "kg per kWh", "how known")
    caption = "Energy at the devices, and carbon with the data centre's PUE and the grid's factor (Table 2)."
    return Table(caption, columns, rows)


def _kilograms(tonnes: float | None) -> float | None:
    return None if tonnes is None else 1000 * tonnes


def _quantity(value: float | None, unit: str) -> Cell:
    """Three digits; below LEAST only that it is less, for the estimate is not exact enough to say more."""
    if value is None:
        return Cell(DASH)
    return Cell(f"< {LEAST} {unit}" if 0 < value < LEAST else f"{value:.3g} {unit}")


def _gibibytes(n_bytes: int | None) -> Cell:
    return plain(None if n_bytes is None else n_bytes / 2**30, digits=2, unit="GiB")
