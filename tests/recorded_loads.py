"""Which device every model of a stage is loaded on; `cpu:0` tells the machine's device from a default."""

from types import ModuleType
from typing import Any

import pytest
import torch

from puna.core.energy import EnergyConfig
from puna.core.machine import Machine, SpeedConfig

ELSEWHERE = Machine(
    device="cpu:0", speed=SpeedConfig(checkpointing="full"), energy=EnergyConfig(device_watts=7, pue=1.75)
)
"""Other than the default in all that may not change an artifact."""


def record_loads(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[torch.device]:
    """The device of each call of `load_model` and `load_score_model` from a stage's module, from now on."""
    devices: list[torch.device] = []

    def recorded(load: Any) -> Any:
        def call(*args: Any, device: torch.device | str = "nowhere said", **named: Any) -> Any:
            devices.append(device)
            return load(*args, device=device, **named)

        return call

    for name in ("load_model", "load_score_model"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    return devices
