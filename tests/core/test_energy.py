"""Energy and carbon: Table 2 to the digit, an estimate that says so, and a GPU's own counter where there is one."""

import sys
import types

import pytest
import torch

from puna.core import energy
from puna.core.energy import WATTS_PER_CORE, EnergyConfig, EnergyMeter, energy_mwh, tco2eq

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("gpu_hours", "watts", "tonnes"),
    [(184_320, 400, 31.22), (368_640, 400, 62.44), (1_038_336, 350, 153.90), (1_720_320, 400, 291.42)],
    ids=["7b", "13b", "34b", "70b"],
)
def test_the_defaults_give_table_2(gpu_hours: float, watts: float, tonnes: float) -> None:
    found = tco2eq(energy_mwh(gpu_hours, watts=watts))
    assert found == pytest.approx(tonnes, abs=0.01), "13B is printed as twice the rounded 7B"


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows its only entry, in hours."""
    now = [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0] * 3600)
    return now


def test_an_estimate_is_hours_times_watts_and_says_so(hours: list[float]) -> None:
    config = EnergyConfig(device_watts=400, pue=1.2, grid_kg_per_kwh=0.5)
    meter = EnergyMeter(config, CPU, earlier_kwh=1.0)
    hours[0] += 10
    found = meter.summary(n_devices=2)
    assert not meter.is_measured
    assert found["kwh"] == pytest.approx(2 * (1 + 4))
    assert found["tco2eq"] == pytest.approx(10 * 1.2 * 0.5 / 1000)
    assert found["source"] == "estimate: hours x 400 W (given)"
    assert (found["pue"], found["grid_kg_per_kwh"]) == (1.2, 0.5)


def test_watts_come_from_the_setting_then_the_table_then_the_cores() -> None:
    assert EnergyMeter(EnergyConfig(device_watts=10), CPU, tdp_watts=700).watts == 10
    assert EnergyMeter(EnergyConfig(), CPU, tdp_watts=700).watts == 700
    assert EnergyMeter(EnergyConfig(), CPU).watts == WATTS_PER_CORE * energy.available_cpus()
    assert "assumed" in EnergyMeter(EnergyConfig(), CPU).summary()["source"]


def test_a_gpu_that_counts_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts millijoules since the driver was loaded; only the difference is ours."""
    counter = [7_000_000]
    nvml = types.SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counter[0],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="abc"))
    meter = EnergyMeter(EnergyConfig(), torch.device("cuda:0"))
    counter[0] += 3_600_000_000
    assert meter.is_measured
    assert meter.kwh == pytest.approx(1.0)
    assert meter.summary()["source"] == "measured by NVML"


def test_a_gpu_without_a_counter_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: object) -> int:
        raise RuntimeError("not supported")

    nvml = types.SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=refuse,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="abc"))
    assert not EnergyMeter(EnergyConfig(), torch.device("cuda:0"), tdp_watts=300).is_measured
