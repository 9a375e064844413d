"""The machine's settings reach torch, a wrong device is refused, and no result depends on them."""

import typing

import pytest
import torch
from pydantic import ValidationError

from puna.core.energy import EnergyConfig
from puna.core.errors import ConfigError
from puna.core.machine import Machine, SpeedConfig
from puna.core.trackers import TrackingConfig


@pytest.fixture(autouse=True)
def _torch_restored():
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def test_threads_and_precision_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(threads=2, matmul_precision="high").apply()
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "high")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Machine().apply()
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (1, "highest")


@pytest.mark.parametrize(
    "name", ["gpu", "mps", "meta", "", "cuda:99", "cuda:256", "cpu:300", "cuda:01", " cpu"]
)
def test_an_unknown_or_absent_device_is_an_error_of_the_user(name: str) -> None:
    machine = Machine(device=name, threads=2, matmul_precision="medium")
    with pytest.raises(ConfigError, match="device: expected auto, cpu, cuda") as caught:
        machine.apply()
    assert caught.value.exit_code == 2
    assert torch.get_float32_matmul_precision() == "highest", "nothing was set"
    with pytest.raises(ConfigError, match="device"):
        _ = machine.torch_device


def test_devices_by_their_names() -> None:
    assert Machine(device="cpu").torch_device == torch.device("cpu")
    assert Machine(device="cpu:0").torch_device == torch.device("cpu", 0)
    assert Machine().torch_device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.gpu
def test_a_gpu_by_its_number() -> None:
    assert Machine(device="cuda:0").torch_device == torch.device("cuda", 0)


def test_it_is_frozen_to_its_last_section() -> None:
    machine = Machine()
    sections = (machine, machine.speed, machine.tracking, machine.energy)
    for section in sections:
        for name in type(section).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(section, name, None)


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"threads": -1}, {"matmul_precision": "low"}, {"devise": "cpu"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Machine(**wrong)


def test_its_sections_are_settings_of_their_own() -> None:
    hints = typing.get_type_hints(Machine)
    assert (hints["speed"], hints["tracking"], hints["energy"]) == (SpeedConfig, TrackingConfig, EnergyConfig)
    changed = Machine.model_validate({"speed": {"compile": True}})
    assert changed.speed == SpeedConfig(compile=True), "a partial section changes what it names alone"
