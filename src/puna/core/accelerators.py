"""Peak speed, memory and power of GPUs: the denominator of every MFU figure, and what `puna plan` plans with.

Peaks are dense: makers print figures with 2:4 sparsity beside them, or only those, twice as high. Sums are kept in
float32, which on GeForce cards runs at half the speed of float16 sums. The tests derive each peak a second time,
from units x operations a cycle x clock.
"""

import difflib
from dataclasses import dataclass
from types import MappingProxyType

from puna.core.errors import ConfigError

__all__ = ["ACCELERATORS", "Accelerator", "find_accelerator", "peak_flops"]

TERA, GIGA, GIB = 10**12, 10**9, 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One GPU model as its maker describes it."""

    name: str
    """How people call it, in lower case."""
    device_names: tuple[str, ...]
    """What torch.cuda.get_device_name returns for it."""
    bf16_flops: float
    """Dense bfloat16 operations a second on its matrix units."""
    fp8_flops: float | None
    """Dense 8-bit floating-point operations a second; None where it has no such units."""
    memory_bytes: int
    """What a program finds; on GDDR cards of data centres error correction has taken its sixteenth."""
    bandwidth_bytes: float
    """Bytes a second between memory and chip."""
    tdp_watts: float
    """Power that its cooling is designed for: the most it draws for long."""
    source: str
    """The document the figures are from."""


def _gpu(
    name: str,
    device_names: str,
    bf16_tera: float,
    fp8_tera: float | None,
    memory_gib: float,
    bandwidth_giga: float,
    tdp_watts: float,
    source: str,
) -> Accelerator:
    return Accelerator(
        name=name,
        device_names=tuple(part.strip() for part in device_names.split("|")),
        bf16_flops=bf16_tera * TERA,
        fp8_flops=None if fp8_tera is None else fp8_tera * TERA,
        memory_bytes=int(memory_gib * GIB),
        bandwidth_bytes=bandwidth_giga * GIGA,
        tdp_watts=tdp_watts,
        source=source,
    )


_AMPERE = "NVIDIA A100 Tensor Core GPU datasheet (2021)"
_HOPPER = "NVIDIA H100 Tensor Core GPU datasheet and architecture paper (2023)"
_GA102 = "NVIDIA Ampere GA102 architecture paper, appendix A"
_ADA = "NVIDIA Ada GPU architecture paper v2, appendix A"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet (2024)"
_BLACKWELL = "NVIDIA Blackwell architecture technical brief (2024)"
_RTX_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture paper, appendix"

_TABLE = (
    _gpu("a100-sxm-80gb", "NVIDIA A100-SXM4-80GB", 312, None, 80, 2039, 400, _AMPERE),
    _gpu("a100-sxm-40gb", "NVIDIA A100-SXM4-40GB", 312, None, 40, 1555, 400, _AMPERE),
    _gpu("a100-pcie-80gb", "NVIDIA A100 80GB PCIe", 312, None, 80, 1935, 300, _AMPERE),
    _gpu("a100-pcie-40gb", "NVIDIA A100-PCIE-40GB", 312, None, 40, 1555, 250, _AMPERE),
    _gpu("h100-sxm", "NVIDIA H100 80GB HBM3", 989.4, 1978.9, 79.6, 3352, 700, _HOPPER),
    _gpu("h100-pcie", "NVIDIA H100 PCIe", 756.5, 1513, 79.6, 2039, 350, _HOPPER),
    _gpu("h100-nvl", "NVIDIA H100 NVL", 835.5, 1671, 93.6, 3938, 400, "NVIDIA H100 NVL product brief (2024)"),
    _gpu("h200", "NVIDIA H200", 989.4, 1978.9, 140.4, 4800, 700, _H200),
    _gpu("h200-nvl", "NVIDIA H200 NVL", 835.5, 1671, 140.4, 4800, 600, _H200),
    _gpu("b200", "NVIDIA B200", 2250, 4500, 179, 8000, 1000, _BLACKWELL),
    _gpu("gb200", "NVIDIA GB200", 2500, 5000, 185, 8000, 1200, _BLACKWELL),
    _gpu("a10", "NVIDIA A10", 125, None, 22.5, 600, 150, "NVIDIA A10 datasheet (2021)"),
    _gpu("a30", "NVIDIA A30", 165, None, 24, 933, 165, "NVIDIA A30 datasheet (2021)"),
    _gpu("a40", "NVIDIA A40", 149.7, None, 45, 696, 300, "NVIDIA A40 datasheet (2021)"),
    _gpu("l4", "NVIDIA L4", 121, 242, 22.5, 300, 72, "NVIDIA L4 datasheet (2023)"),
    _gpu("l40", "NVIDIA L40", 181.05, 362.1, 45, 864, 300, "NVIDIA L40 datasheet (2023)"),
    _gpu("l40s", "NVIDIA L40S", 362.05, 733, 45, 864, 350, "NVIDIA L40S datasheet (2023)"),
    _gpu("rtx-3090", "NVIDIA GeForce RTX 3090", 71, None, 24, 936, 350, _GA102),
    _gpu("rtx-4090", "NVIDIA GeForce RTX 4090", 165.2, 330.3, 24, 1008, 450, _ADA),
    _gpu("rtx-5090", "NVIDIA GeForce RTX 5090", 209.5, 419, 32, 1792, 575, _RTX_BLACKWELL),
    _gpu("rtx-a6000", "NVIDIA RTX A6000", 154.8, None, 48, 768, 300, _GA102),
    _gpu("rtx-6000-ada", "NVIDIA RTX 6000 Ada Generation", 364.2, 728.5, 48, 960, 300, _ADA),
    _gpu("mi250x-gcd", "AMD Instinct MI250X", 191.5, None, 64, 1638, 280, "AMD CDNA 2 paper; half a card"),
    _gpu("mi300x", "AMD Instinct MI300X", 1307.4, 2614.9, 192, 5300, 750, "AMD Instinct MI300X data sheet"),
    _gpu("mi325x", "AMD Instinct MI325X", 1307.4, 2614.9, 256, 6000, 1000, "AMD Instinct MI325X data sheet"),
    _gpu("mi350x", "AMD Instinct MI350X", 2306.9, 4613.7, 288, 8000, 1000, "AMD Instinct MI350X data sheet"),
    _gpu("mi355x", "AMD Instinct MI355X", 2516.6, 5033.2, 288, 8000, 1400, "AMD Instinct MI355X data sheet"),
)
"""name, device names, bf16 and fp8 teraFLOP/s, GiB of memory, GB/s, watts, source. An MI250X shows as two devices."""

ACCELERATORS = MappingProxyType({accelerator.name: accelerator for accelerator in _TABLE})
"""By name."""

_ALIASES = {
    "a100": "a100-sxm-80gb",
    "a100-80gb": "a100-sxm-80gb",
    "a100-40gb": "a100-sxm-40gb",
    "h100": "h100-sxm",
    "h200-sxm": "h200",
    "3090": "rtx-3090",
    "4090": "rtx-4090",
    "5090": "rtx-5090",
    "a6000": "rtx-a6000",
    "mi250x": "mi250x-gcd",
}
"""Short names; the one that is usual in clusters for training."""

_BY_DEVICE_NAME = {device.lower(): gpu for gpu in _TABLE for device in gpu.device_names}


def find_accelerator(name: str) -> Accelerator:
    """The GPU of that name, of a short form of it such as a100, or of torch's name for it.

    Raises:
        ConfigError: the table has none.
    """
    wanted = "-".join(name.lower().replace("_", " ").split())
    found = ACCELERATORS.get(_ALIASES.get(wanted, wanted)) or _BY_DEVICE_NAME.get(name.strip().lower())
    if found:
        return found
    nearest = difflib.get_close_matches(wanted, [*ACCELERATORS, *_ALIASES], n=1, cutoff=0.5)
    raise ConfigError(
        where="gpu",
        expected=f"one of {', '.join(ACCELERATORS)}",
        got=repr(name),
        fix=f"Did you mean {nearest[0]!r}?" if nearest else "Choose one of these.",
    )


def peak_flops(device_name: str, *, is_fp8: bool = False) -> float | None:
    """Dense operations a second of the device that torch calls so; None for one the table does not hold.

    A laptop's or a slice's name is not its big brother's: only whole names match, so that no MFU is made up.
    """
    gpu = _BY_DEVICE_NAME.get(device_name.strip().lower())
    if gpu is None:
        return None
    return gpu.fp8_flops if is_fp8 else gpu.bf16_flops
