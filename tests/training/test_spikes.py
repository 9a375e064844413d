"""Verdicts on losses: the formula, no false alarms on calm noise, a level that stays, divergence."""

import math
import random

import pytest

from puna.core.errors import NumericsError
from puna.training.spikes import MAX_IN_A_ROW, LossWatch, SpikeConfig


def watch_over(losses: list[float], config: SpikeConfig) -> tuple[LossWatch, list[int]]:
    """The watch after these losses, and the indices of those it called spikes."""
    watch = LossWatch()
    return watch, [i for i, loss in enumerate(losses) if watch.spike(loss, config)]


def test_the_first_averages_are_plain_ones() -> None:
    losses = [3.0, 1.0, 2.0, 4.0]
    watch, _ = watch_over(losses, SpikeConfig(window_steps=100))
    assert watch.mean == pytest.approx(2.5)
    assert watch.variance == pytest.approx(sum((x - 2.5) ** 2 for x in losses) / 4)


def test_later_averages_forget_exponentially() -> None:
    watch, _ = watch_over([1.0] * 50 + [2.0] * 30, SpikeConfig(window_steps=10, threshold=1e9))
    assert watch.mean == pytest.approx(2 - 0.9**30)


def test_a_spike_stands_out_and_does_not_move_the_mean() -> None:
    draw = random.Random(0)
    calm = [2 + draw.gauss(0, 0.05) for _ in range(200)]
    before, none = watch_over(calm, SpikeConfig(window_steps=50))
    assert none == []  # 150 verdicts at six deviations: one false alarm in about seven million such tests
    spike = before.spike(2.6, SpikeConfig(window_steps=50))
    assert spike is not None
    assert (spike.loss, spike.expected) == (2.6, before.mean)
    assert before.mean == pytest.approx(2, abs=0.03)
    assert before.spike(2.1, SpikeConfig(window_steps=50)) is None


def test_falling_losses_are_never_spikes() -> None:
    losses = [10 * 0.99**i for i in range(500)]
    assert watch_over(losses, SpikeConfig(window_steps=20))[1] == []


def test_a_loss_that_stays_high_is_the_new_level() -> None:
    _, spikes = watch_over(
        [1.0 + 0.01 * (i % 2) for i in range(100)] + [2.0] * 50, SpikeConfig(window_steps=20)
    )
    assert spikes == list(range(100, 100 + MAX_IN_A_ROW))


def test_five_losses_far_above_the_first_are_a_divergence() -> None:
    config, watch = SpikeConfig(), LossWatch()
    for loss in (4.0, 3.0, 14.0, 14.0, 14.0, 14.0, 3.0, 14.0, 14.0, 14.0, 14.0):
        watch.spike(loss, config)
        assert watch.is_calm == (loss < 13)
    with pytest.raises(NumericsError, match=r"below 13 nats.*it diverges.*Lower peak_lr"):
        watch.spike(14.0, config)


def test_divergence_can_be_allowed() -> None:
    """Losses that stop a run by default neither stop it nor hold back its training states; spikes stay spikes."""
    losses = [1.0 + 0.01 * (i % 2) for i in range(20)] + [1e9] * 20
    with pytest.raises(NumericsError, match="it diverges"):
        watch_over(losses, SpikeConfig(window_steps=10))
    config, watch, spikes = SpikeConfig(window_steps=10, divergence_ratio=None), LossWatch(), []
    for index, loss in enumerate(losses):
        if watch.spike(loss, config):
            spikes.append(index)
        assert watch.is_calm
    assert spikes == list(range(20, 20 + MAX_IN_A_ROW))
    assert watch.n == len(losses) - MAX_IN_A_ROW


def test_saved_in_the_middle_it_decides_the_same() -> None:
    draw = random.Random(1)
    losses = [2 + draw.gauss(0, 0.05) + (1 if i % 70 == 69 else 0) for i in range(300)]
    config = SpikeConfig(window_steps=30)
    _, whole = watch_over(losses, config)
    first, early = watch_over(losses[:100], config)
    copy = LossWatch(first.first, first.mean, first.variance, first.n, first.n_in_a_row, first.n_high)
    late = [i for i, loss in enumerate(losses[100:], start=100) if copy.spike(loss, config)]
    assert early + late == whole != []
    assert math.isfinite(copy.mean)
