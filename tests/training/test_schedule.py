"""The learning rate at the places the paper names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.training.schedule import constant_lr, cosine_lr

PAPER = {"peak_lr": 3e-4, "warmup_steps": 2000, "total_steps": 500_000}


def test_warmup_is_a_line_that_reaches_the_peak() -> None:
    assert cosine_lr(0, **PAPER) == pytest.approx(3e-4 / 2000)
    assert cosine_lr(999, **PAPER) == pytest.approx(1.5e-4)
    assert cosine_lr(1999, **PAPER) == 3e-4


def test_last_update_runs_at_a_tenth_of_the_peak() -> None:
    assert cosine_lr(499_999, **PAPER) == pytest.approx(3e-5)


def test_halfway_down_is_the_mean_of_peak_and_floor() -> None:
    assert cosine_lr(2000 + 249_000 - 1, **PAPER) == pytest.approx((3e-4 + 3e-5) / 2)


@given(
    total=st.integers(1, 300),
    warmup_share=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_rate_rises_then_falls_and_stays_in_bounds(total: int, warmup_share: float, floor: float) -> None:
    warmup = int(warmup_share * total)
    rates = [
        cosine_lr(i, peak_lr=1.0, warmup_steps=warmup, total_steps=total, final_fraction=floor)
        for i in range(total)
    ]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    if warmup < total:
        assert rates[-1] == pytest.approx(floor)


def test_constant_rate_stays_at_the_peak_after_warmup() -> None:
    rates = [constant_lr(i, peak_lr=1e-6, warmup_steps=2) for i in range(4)]
    assert rates == [5e-7, 1e-6, 1e-6, 1e-6]
    assert constant_lr(0, peak_lr=1e-6, warmup_steps=0) == 1e-6
