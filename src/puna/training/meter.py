"""Where a training's seconds, memory and energy go, and how fast it is: tokens/s, MFU, time lost (§2.2.1).

Times are this machine's and never decide anything; they stand in metric rows of their own split, "system", so that
the rows of a resumed training can be compared with those of an undisturbed one.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch

from puna.core.accelerators import find_accelerator, peak_flops
from puna.core.devices import peak_rss_bytes, rss_bytes
from puna.core.energy import EnergyConfig, EnergyMeter
from puna.core.errors import ConfigError

__all__ = ["Meter", "Part"]

Part = Literal["update", "data", "evaluation", "checkpoint"]
"""data is inside update; evaluation and checkpoint are beside it."""
_PARTS: tuple[Part, ...] = ("update", "data", "evaluation", "checkpoint")


class Meter:
    """Adds up by part; a lap is what has passed since the last one."""

    def __init__(
        self,
        device: torch.device,
        energy: EnergyConfig,
        *,
        flops_per_token: float | None = None,
        n_devices: int = 1,
    ) -> None:
        """
        Args:
            flops_per_token: Forward and backward, model/accounting.training_flops_per_token; None leaves MFU out.
            n_devices: Processes like this one that share the tokens.
        """
        self._device, self._n_devices, self._flops_per_token = device, n_devices, flops_per_token
        self._peak_flops, tdp_watts = _peak_and_tdp(device)
        self.energy = EnergyMeter(energy, device, tdp_watts=tdp_watts)
        self._earlier: dict[str, float] | None = None
        self._lap, self._total = _zeros(), _zeros()
        self._started = time.monotonic()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def go_on_from(self, earlier: Mapping[str, float | None]) -> None:
        """Add what the attempts before spent, from their state(); only the first call counts.

        A later one comes from a rollback, and the time before that has been spent all the same.
        """
        if self._earlier is None:
            self._earlier = {name: value or 0.0 for name, value in earlier.items()}
            self.energy.earlier_kwh = self._earlier.get("energy_kwh", 0.0)

    @contextmanager
    def timing(self, part: Part) -> Iterator[None]:
        """Count the seconds of the block, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._lap[part] += time.perf_counter() - started

    def add_tokens(self, n_tokens: int) -> None:
        """Tokens of one update, over all processes."""
        self._lap["tokens"] += n_tokens

    def lap(self) -> dict[str, float | None]:
        """Numbers since the last lap, and the memory and energy of now; MFU is None where no peak is known."""
        lap = self._lap
        for name, value in lap.items():
            self._total[name] += value
        self._lap = _zeros()
        kwh = self.energy.kwh
        spent = lap["update"] + lap["evaluation"] + lap["checkpoint"]
        values: dict[str, float | None] = {
            "tokens_per_second": _rate(lap),
            "mfu": self._mfu(_rate(lap)),
            "data_fraction": lap["data"] / max(spent, 1e-9),
            "checkpoint_fraction": lap["checkpoint"] / max(spent, 1e-9),
            "evaluation_fraction": lap["evaluation"] / max(spent, 1e-9),
            "rss_bytes": rss_bytes(),
            "energy_kwh": None if kwh is None else kwh * self._n_devices,
        }
        if self._device.type == "cuda":
            values["cuda_peak_bytes"] = torch.cuda.max_memory_allocated(self._device)
        return values

    def state(self) -> dict[str, float | None]:
        """What a resumed training goes on counting from."""
        return {"energy_kwh": self.energy.kwh, "wall_seconds": self._wall_seconds(), **self._seconds()}

    def summary(self) -> dict[str, Any]:
        """For the manifest: rates of this process; seconds and energy of all attempts together."""
        now = {name: self._total[name] + self._lap[name] for name in self._total}
        return {
            "tokens_per_second": _rate(now),
            "mfu": self._mfu(_rate(now)),
            "flops_per_token": self._flops_per_token,
            "peak_flops": self._peak_flops,
            "n_devices": self._n_devices,
            "seconds": {"wall": self._wall_seconds()}
            | {name.removesuffix("_seconds"): value for name, value in self._seconds().items()},
            "peak_rss_bytes": peak_rss_bytes(),
            "cuda_peak_bytes": torch.cuda.max_memory_allocated(self._device)
            if self._device.type == "cuda"
            else None,
            "energy": self.energy.summary(self._n_devices),
        }

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Operations that the model needs over those the devices could do, in the time of the updates."""
        if self._flops_per_token is None or self._peak_flops is None:
            return None
        return tokens_per_second * self._flops_per_token / (self._peak_flops * self._n_devices)

    def _seconds(self) -> dict[str, float]:
        return {
            f"{part}_seconds": self._before(f"{part}_seconds") + self._total[part] + self._lap[part]
            for part in _PARTS
        }

    def _wall_seconds(self) -> float:
        return self._before("wall_seconds") + time.monotonic() - self._started

    def _before(self, name: str) -> float:
        return (self._earlier or {}).get(name, 0.0)


def _zeros() -> dict[str, float]:
    return dict.fromkeys((*_PARTS, "tokens"), 0.0)


def _rate(sums: Mapping[str, float]) -> float:
    return sums["tokens"] / max(sums["update"], 1e-9)


def _peak_and_tdp(device: torch.device) -> tuple[float | None, float | None]:
    """Dense bfloat16 peak and design power of a GPU in the table; a CPU's are not known."""
    if device.type != "cuda":
        return None, None
    name = torch.cuda.get_device_name(device)
    try:
        return peak_flops(name), find_accelerator(name).tdp_watts
    except ConfigError:
        return None, None
