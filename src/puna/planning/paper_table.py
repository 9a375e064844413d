"""Table 2 again, from its own GPU-hours and watts, with what it leaves unsaid: the carbon factor, speed and MFU."""

import math
from dataclasses import dataclass

from puna.core.accelerators import find_accelerator
from puna.core.energy import PAPER_GRID, PAPER_PUE, energy_mwh, tco2eq
from puna.model.accounting import n_parameters, training_flops_per_token
from puna.model.config import PRESETS
from puna.planning.throughput import mfu_of

__all__ = ["PUBLISHED", "PaperRow", "Published", "cut_to_cents", "implied_factor", "paper_rows"]

PAPER_TOKENS = 2_000_000_000_000
"""Table 1."""
PAPER_SEQ_LEN = 4096
"""Table 1."""
PAPER_GPU = "a100-sxm-80gb"
"""§2.2.1 and Table 2: NVIDIA A100-80GB."""


@dataclass(frozen=True, slots=True)
class Published:
    """A row of Table 2."""

    gpu_hours: int
    watts: int
    tco2eq: float


PUBLISHED = {
    "7b": Published(184_320, 400, 31.22),
    "13b": Published(368_640, 400, 62.44),
    "34b": Published(1_038_336, 350, 153.90),
    "70b": Published(1_720_320, 400, 291.42),
}
"""Table 2; its last line is 3,311,616 hours and 539.00 t."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """Paper, ours, and what both imply."""

    model: str
    parameters: int
    flops: int
    gpu_hours: int
    watts: int
    energy_mwh: float
    tco2eq: float
    """Cut to hundredths, as the paper's are."""
    tco2eq_exact: float
    published_tco2eq: float
    tokens_per_second_per_gpu: float
    mfu: float
    """With attention's operations, as everywhere in puna."""
    mfu_6n: float
    """With 6 operations a parameter and token only, as is often quoted."""


def cut_to_cents(tonnes: float) -> float:
    """Two decimals, the rest dropped: rounding gives 62.45 and 153.91 where Table 2 prints 62.44 and 153.90."""
    return math.floor(tonnes * 100 + 1e-9) / 100


def implied_factor() -> tuple[float, float]:
    """Lowest and highest PUE x grid factor (kg for each kWh) at which all rows, cut to hundredths, are the paper's."""
    rows = [(row.gpu_hours * row.watts / 1e6, row.tco2eq) for row in PUBLISHED.values()]
    return max(t / mwh for mwh, t in rows), min((t + 0.01) / mwh for mwh, t in rows)


def paper_rows(*, pue: float = PAPER_PUE, grid: float = PAPER_GRID) -> list[PaperRow]:
    """Every row of Table 2."""
    peak = find_accelerator(PAPER_GPU).bf16_flops
    rows = []
    for name, published in PUBLISHED.items():
        config = PRESETS[name]
        per_token = training_flops_per_token(config, seq_len=PAPER_SEQ_LEN)
        rate = PAPER_TOKENS / published.gpu_hours / 3600
        mwh = energy_mwh(published.gpu_hours, watts=published.watts, pue=pue)
        tonnes = tco2eq(mwh, grid=grid)
        rows.append(
            PaperRow(
                model=name,
                parameters=n_parameters(config),
                flops=per_token * PAPER_TOKENS,
                gpu_hours=published.gpu_hours,
                watts=published.watts,
                energy_mwh=mwh,
                tco2eq=cut_to_cents(tonnes),
                tco2eq_exact=tonnes,
                published_tco2eq=published.tco2eq,
                tokens_per_second_per_gpu=rate,
                mfu=mfu_of(rate, flops_per_token=per_token, peak_flops=peak),
                mfu_6n=mfu_of(rate, flops_per_token=6 * n_parameters(config), peak_flops=peak),
            )
        )
    return rows
