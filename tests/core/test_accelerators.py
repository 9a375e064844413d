"""The GPU table against a second derivation: units x operations a cycle x clock, as the makers count them."""

import pytest

from puna.core.accelerators import ACCELERATORS, find_accelerator, peak_flops
from puna.core.errors import ConfigError

DERIVED = {
    "a100-sxm-80gb": (108, 2048, 1.41),
    "a100-sxm-40gb": (108, 2048, 1.41),
    "a100-pcie-80gb": (108, 2048, 1.41),
    "a100-pcie-40gb": (108, 2048, 1.41),
    "h100-sxm": (132, 4096, 1.83),
    "h100-pcie": (114, 4096, 1.62),
    "h200": (132, 4096, 1.83),
    "b200": (148, 8192, 1.86),
    "a10": (72, 1024, 1.695),
    "a30": (56, 2048, 1.44),
    "a40": (84, 1024, 1.74),
    "l4": (58, 1024, 2.04),
    "l40s": (142, 1024, 2.49),
    "l40": (142, 512, 2.49),
    "rtx-3090": (82, 512, 1.695),
    "rtx-4090": (128, 512, 2.52),
    "rtx-5090": (170, 512, 2.407),
    "rtx-a6000": (84, 1024, 1.80),
    "rtx-6000-ada": (142, 1024, 2.505),
    "mi250x-gcd": (110, 1024, 1.70),
    "mi300x": (304, 2048, 2.10),
    "mi325x": (304, 2048, 2.10),
    "mi350x": (256, 4096, 2.20),
    "mi355x": (256, 4096, 2.40),
}
"""Multiprocessors or compute units, dense bf16 operations of one in a cycle, boost clock in GHz."""

UNDERIVED = {"h100-nvl", "h200-nvl", "gb200"}
"""Their makers print a peak for a clock that they do not print."""

SHORT_NAMES = {"a100", "h100", "h200", "l40s", "4090", "mi300x", "b200"}


@pytest.mark.parametrize("name", DERIVED)
def test_peaks_are_dense(name: str) -> None:
    """A figure with sparsity, or half a figure, is off by a factor of 2 and fails."""
    units, per_cycle, gigahertz = DERIVED[name]
    assert ACCELERATORS[name].bf16_flops == pytest.approx(units * per_cycle * gigahertz * 1e9, rel=0.01)


def test_every_row_is_derived_or_said_not_to_be() -> None:
    assert set(ACCELERATORS) == set(DERIVED) | UNDERIVED


def test_the_published_peaks() -> None:
    peaks = {name: round(find_accelerator(name).bf16_flops / 1e12) for name in SHORT_NAMES}
    assert peaks == {
        "a100": 312,
        "h100": 989,
        "h200": 989,
        "l40s": 362,
        "4090": 165,
        "mi300x": 1307,
        "b200": 2250,
    }


@pytest.mark.parametrize("gpu", ACCELERATORS.values(), ids=lambda gpu: gpu.name)
def test_rows_are_consistent(gpu) -> None:
    assert gpu.fp8_flops is None or gpu.fp8_flops == pytest.approx(2 * gpu.bf16_flops, rel=0.02)
    assert 50 < gpu.bf16_flops / gpu.bandwidth_bytes < 500, "operations for each byte read"
    assert 20 * 2**30 < gpu.memory_bytes < 300 * 2**30
    assert 0.1e12 < gpu.bf16_flops / gpu.tdp_watts < 4e12, "operations for each joule"
    assert gpu.source
    assert gpu.name == gpu.name.lower()


def test_one_chip_in_two_packages_has_one_peak() -> None:
    a100 = {gpu.bf16_flops for name, gpu in ACCELERATORS.items() if name.startswith("a100")}
    assert len(a100) == 1
    assert ACCELERATORS["h100-sxm"].bf16_flops == ACCELERATORS["h200"].bf16_flops


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("nvidia l40s", 362.05),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_torch_names_find_their_row(device: str, teraflops: float) -> None:
    assert peak_flops(device) == teraflops * 1e12
    assert find_accelerator(device).bf16_flops == teraflops * 1e12


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100",
        "AMD EPYC 9654",
        "",
    ],
)
def test_lesser_devices_have_no_peak(device: str) -> None:
    """Better no MFU than a wrong one."""
    assert peak_flops(device) is None


def test_fp8_where_there_is_none() -> None:
    assert peak_flops("NVIDIA A100-SXM4-80GB", is_fp8=True) is None
    assert peak_flops("NVIDIA H200", is_fp8=True) == 1978.9e12


@pytest.mark.parametrize("name", ["a100", "A100", " h100 ", "RTX 4090", "rtx_4090", "MI300X"])
def test_people_write_names_as_they_like(name: str) -> None:
    assert find_accelerator(name).bf16_flops > 0


def test_an_unknown_name_is_an_error_that_helps() -> None:
    with pytest.raises(ConfigError, match=r"got 'h1000'.*Did you mean 'h100'\?"):
        find_accelerator("h1000")
    with pytest.raises(ConfigError, match=r"expected one of a100-sxm-80gb, .*Choose one of these"):
        find_accelerator("abacus")


def test_device_names_are_of_one_row_each() -> None:
    names = [device.lower() for gpu in ACCELERATORS.values() for device in gpu.device_names]
    assert len(names) == len(set(names))
