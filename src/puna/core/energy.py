"""Energy and carbon of a piece of work (§2.2.1, Table 2): read from the GPUs where they tell it, else estimated.

The paper's own account is an estimate too: hours x TDP x PUE x grid factor. It leaves out the network, the other
parts of a server, cooling beyond the PUE, and making the hardware; so does this. A GPU that is only estimated counts as
drawing all of its TDP.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field

from puna.core.config import Settings
from puna.core.devices import available_cpus

__all__ = ["PAPER_GRID", "PAPER_PUE", "EnergyConfig", "EnergyMeter", "energy_mwh", "tco2eq"]

PAPER_PUE = 1.1
"""Energy of the data centre over energy of its GPUs: Llama 1 (Touvron et al. 2023a, §6). Llama 2 states none."""

PAPER_GRID = 0.385
"""kg CO2eq for each kWh, the average of the US grid: Llama 1, §6. With PAPER_PUE it gives Table 2."""

WATTS_PER_CORE = 5.0
"""What a core of a server draws with its share of the package, where nothing better is known. Our choice."""

_JOULES_PER_KWH = 3.6e6


class EnergyConfig(Settings):
    """What turns hours into energy and carbon."""

    device_watts: float | None = Field(default=None, gt=0)
    """Power of one device for the estimate; None takes the GPU's TDP, or 5 W a core of a CPU (our choice)."""
    pue: float = Field(default=PAPER_PUE, ge=1)
    """Energy of the data centre over energy of its computers; with the grid factor it gives Table 2."""
    grid_kg_per_kwh: float = Field(default=PAPER_GRID, ge=0)
    """CO2 equivalent of a kilowatt-hour where the work runs; the value that reproduces Table 2."""


def energy_mwh(gpu_hours: float, *, watts: float, pue: float = PAPER_PUE) -> float:
    """Megawatt-hours that the data centre takes from the grid."""
    return gpu_hours * watts * pue / 1e6


def tco2eq(mwh: float, *, grid: float = PAPER_GRID) -> float:
    """Tonnes of CO2 equivalent; kg for each kWh are tonnes for each MWh."""
    return mwh * grid


@dataclass(slots=True)
class EnergyMeter:
    """Counts the energy of this process's devices from its making on; energy of earlier attempts can be added."""

    config: EnergyConfig
    device: torch.device
    earlier_kwh: float = 0.0
    """Of the attempts before a resumption."""
    tdp_watts: float | None = None
    """The device's, from the table of accelerators; None where it is not known."""
    _counters: list[Callable[[], float]] = field(init=False)
    _started: float = field(init=False)
    _joules_then: float = field(init=False)

    def __post_init__(self) -> None:
        self._counters = _nvml_counters(self.device)
        self._started = time.monotonic()
        self._joules_then = self._counted()

    def _counted(self) -> float:
        return sum(read() for read in self._counters)

    @property
    def is_measured(self) -> bool:
        """Whether the devices count their own energy."""
        return bool(self._counters)

    @property
    def watts(self) -> float | None:
        """Power that the estimate takes for granted; None for a GPU that nobody described."""
        if self.config.device_watts is not None:
            return self.config.device_watts
        if self.tdp_watts is not None:
            return self.tdp_watts
        return WATTS_PER_CORE * available_cpus() if self.device.type == "cpu" else None

    @property
    def kwh(self) -> float | None:
        """Energy of the devices so far, without the PUE; None where it can be neither read nor estimated."""
        if self.is_measured:
            joules = self._counted() - self._joules_then
        elif self.watts is None:
            return None
        else:
            joules = (time.monotonic() - self._started) * self.watts
        return self.earlier_kwh + joules / _JOULES_PER_KWH

    def summary(self, n_devices: int = 1) -> dict[str, Any]:
        """For the manifest: energy, carbon, how they were come by, and with which factors.

        Args:
            n_devices: Processes like this one; all are taken to use as much.
        """
        kwh = None if self.kwh is None else self.kwh * n_devices
        mwh = None if kwh is None else kwh * self.config.pue / 1000
        return {
            "kwh": kwh,
            "tco2eq": None if mwh is None else tco2eq(mwh, grid=self.config.grid_kg_per_kwh),
            "source": "measured by NVML" if self.is_measured else self._estimate(),
            "pue": self.config.pue,
            "grid_kg_per_kwh": self.config.grid_kg_per_kwh,
        }

    def _estimate(self) -> str:
        if self.watts is None:
            return "unknown: the GPU is in no table; set machine.energy.device_watts"
        if self.config.device_watts is not None:
            why = "given"
        elif self.tdp_watts is not None:
            why = "TDP"
        else:
            why = f"{WATTS_PER_CORE:g} W a core, assumed"
        return f"estimate: hours x {self.watts:g} W ({why})"


def _nvml_counters(device: torch.device) -> list[Callable[[], float]]:
    """Readers of joules since the driver was loaded; none without pynvml, a GPU, or its counter (before Volta)."""
    if device.type != "cuda":
        return []
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []
    return [lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000]
