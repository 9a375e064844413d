"""Speed, hours and days follow from operations and peak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.accelerators import find_accelerator
from puna.model.config import PRESETS
from puna.planning.throughput import mfu_of, throughput

A100 = find_accelerator("a100")


def test_by_hand() -> None:
    """7B at 40 % of 312 TFLOP/s."""
    found = throughput(PRESETS["7b"], A100, n_tokens=2 * 10**12, seq_len=4096, n_gpus=512, mfu=0.4)
    per_token = 6 * (6_738_415_616 - 32_000 * 4096) + 12 * 32 * 4096 * 4096
    assert found.flops_per_token == per_token
    assert found.flops == 2 * 10**12 * per_token
    assert found.tokens_per_second_per_gpu == pytest.approx(0.4 * 312e12 / per_token)
    assert found.gpu_hours == pytest.approx(2e12 * per_token / (0.4 * 312e12) / 3600)
    assert found.days == pytest.approx(found.gpu_hours / 512 / 24)


@given(st.sampled_from(["nano", "7b", "70b"]), st.floats(0.01, 1), st.integers(1, 4096))
def test_invariants(model: str, mfu: float, n_gpus: int) -> None:
    """Hours do not depend on the number of GPUs; the MFU comes back out; all tokens are read in that time."""
    found = throughput(PRESETS[model], A100, n_tokens=10**9, seq_len=512, n_gpus=n_gpus, mfu=mfu)
    one = throughput(PRESETS[model], A100, n_tokens=10**9, seq_len=512, n_gpus=1, mfu=mfu)
    assert found.gpu_hours == pytest.approx(one.gpu_hours)
    rate = found.tokens_per_second_per_gpu
    assert mfu_of(rate, flops_per_token=found.flops_per_token, peak_flops=312e12) == pytest.approx(mfu)
    assert found.tokens_per_second * found.days * 86_400 == pytest.approx(1e9)
