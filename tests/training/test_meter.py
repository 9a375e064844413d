"""Rates against closed forms, by a clock that only moves when told; MFU only where a peak is known."""

import types

import pytest
import torch

from puna.core import energy as energy_module
from puna.core.accelerators import find_accelerator
from puna.core.energy import EnergyConfig
from puna.model.accounting import training_flops_per_token
from puna.model.config import preset
from puna.training import meter as meter_module
from puna.training.meter import Meter


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter_module, "time", clock)
    monkeypatch.setattr(energy_module, "time", clock)
    return clock


def update(meter: Meter, clock: Clock, n_tokens: int, *, data: float, rest: float) -> None:
    with meter.timing("update"):
        with meter.timing("data"):
            clock.now += data
        clock.now += rest
    meter.add_tokens(n_tokens)


def cpu_meter(**options: object) -> Meter:
    return Meter(torch.device("cpu"), EnergyConfig(device_watts=360), **options)


def test_rates_are_over_updates_and_losses_over_all(clock: Clock) -> None:
    meter = cpu_meter()
    for _ in range(4):
        update(meter, clock, 1000, data=0.5, rest=1.5)
    with meter.timing("checkpoint"):
        clock.now += 1
    with meter.timing("evaluation"):
        clock.now += 1
    lap = meter.lap()
    assert lap["tokens_per_second"] == pytest.approx(4000 / 8)
    assert lap["data_fraction"] == pytest.approx(2 / 10)
    assert (lap["checkpoint_fraction"], lap["evaluation_fraction"]) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
    )
    assert lap["energy_kwh"] == pytest.approx(10 * 360 / 3.6e6)
    update(meter, clock, 1000, data=0, rest=1)
    assert meter.lap()["tokens_per_second"] == pytest.approx(1000)
    assert meter.summary()["tokens_per_second"] == pytest.approx(5000 / 9)


def test_a_failed_block_is_counted_too(clock: Clock) -> None:
    meter = cpu_meter()

    def fail() -> None:
        clock.now += 2
        raise OSError("disk full")

    with pytest.raises(OSError, match="full"), meter.timing("checkpoint"):
        fail()
    assert meter.summary()["seconds"]["checkpoint"] == 2


def test_a_resumed_training_goes_on_counting(clock: Clock) -> None:
    first = cpu_meter()
    update(first, clock, 1000, data=1, rest=9)
    saved = first.state()
    clock.now += 1000  # while nothing ran
    second = cpu_meter()
    second.go_on_from(saved)
    second.go_on_from(saved)  # as after a rollback
    update(second, clock, 1000, data=1, rest=4)
    found = second.summary()
    assert found["seconds"] == {
        "wall": pytest.approx(15), "update": pytest.approx(15), "data": pytest.approx(2), "evaluation": 0,
        "checkpoint": 0,
    }  # fmt: skip
    assert found["energy"]["kwh"] == pytest.approx(15 * 360 / 3.6e6)
    assert found["tokens_per_second"] == pytest.approx(200), "of this process"


def test_a_cpu_has_no_mfu(clock: Clock) -> None:
    meter = cpu_meter(flops_per_token=1e9)
    update(meter, clock, 1000, data=0, rest=1)
    assert meter.lap()["mfu"] is None
    assert meter.summary()["peak_flops"] is None
    assert meter.summary()["cuda_peak_bytes"] is None


def test_the_papers_hours_are_39_percent_of_an_a100(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """184,320 GPU-hours for 2 T tokens of the 7B (Table 2) are 3,014 tokens/s a GPU."""
    cuda = types.SimpleNamespace(
        get_device_name=lambda device: "NVIDIA A100-SXM4-80GB",
        reset_peak_memory_stats=lambda device: None,
        max_memory_allocated=lambda device: 60 * 2**30,
        get_device_properties=None,
    )
    monkeypatch.setattr(meter_module.torch, "cuda", cuda)
    monkeypatch.setattr(energy_module, "_nvml_counters", lambda device: [])
    flops = training_flops_per_token(preset("7b"), seq_len=4096)
    meter = Meter(torch.device("cuda:0"), EnergyConfig(), flops_per_token=flops, n_devices=2048)
    seconds = 184_320 / 2048 * 3600
    update(meter, clock, 2_000_000_000_000, data=0, rest=seconds)
    lap = meter.lap()
    assert lap["tokens_per_second"] / 2048 == pytest.approx(3014, abs=1)
    assert lap["mfu"] == pytest.approx(3014 * flops / 312e12, rel=1e-3)
    assert 0.38 < lap["mfu"] < 0.46
    assert lap["cuda_peak_bytes"] == 60 * 2**30
    energy = meter.summary()["energy"]
    assert find_accelerator("a100").tdp_watts == 400
    assert energy["source"] == "estimate: hours x 400 W (TDP)"
    assert energy["tco2eq"] == pytest.approx(31.22, abs=0.01)


def test_a_gpu_that_the_table_lacks_has_no_mfu(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(
        get_device_name=lambda device: "NVIDIA Made Up 9000",
        reset_peak_memory_stats=lambda device: None,
        max_memory_allocated=lambda device: 1,
    )
    monkeypatch.setattr(meter_module.torch, "cuda", cuda)
    monkeypatch.setattr(energy_module, "_nvml_counters", lambda device: [])
    meter = Meter(torch.device("cuda:0"), EnergyConfig(), flops_per_token=1e9)
    update(meter, clock, 10, data=0, rest=1)
    assert meter.lap()["mfu"] is None
    assert meter.summary()["energy"]["kwh"] is None
    assert "set machine.energy.device_watts" in meter.summary()["energy"]["source"]
    assert meter.state()["energy_kwh"] is None
