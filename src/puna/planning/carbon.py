"""Energy and carbon of GPU-hours, as §2.2.1 estimates them: hours x watts x PUE x grid factor.

Like the paper's figures these leave out the network, the servers around the GPUs, cooling beyond the PUE, and the
making of the hardware; and a GPU that draws less than its TDP is counted as drawing all of it.
"""

from puna.core.energy import EnergyConfig

__all__ = ["PAPER_GRID", "PAPER_PUE", "energy_mwh", "tco2eq"]

PAPER_PUE: float = EnergyConfig().pue
"""Energy of the data centre over energy of its GPUs, 1.1: Llama 1 (Touvron et al. 2023a, §6). Llama 2 states none."""

PAPER_GRID: float = EnergyConfig().grid_kg_per_kwh
"""kg CO2eq for each kWh, 0.385, the average of the US grid: Llama 1, §6. With PAPER_PUE it gives Table 2."""


def energy_mwh(gpu_hours: float, *, watts: float, pue: float = PAPER_PUE) -> float:
    """Megawatt-hours that the data centre takes from the grid."""
    return gpu_hours * watts * pue / 1e6


def tco2eq(mwh: float, *, grid: float = PAPER_GRID) -> float:
    """Tonnes of CO2 equivalent; kg for each kWh are tonnes for each MWh."""
    return mwh * grid
