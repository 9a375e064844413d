"""Closed forms: what a pair costs at its margin, and what a score costs at the threshold."""

import math

import pytest
import torch

from puna.reward_modeling.ranking_loss import ranking_loss, safety_auxiliary_loss


def test_equal_scores_cost_log_2() -> None:
    scores = torch.tensor([-3.0, 0.0, 5.0])
    assert ranking_loss(scores, scores, margin=torch.zeros(3)).item() == pytest.approx(math.log(2))


def test_a_gap_equal_to_the_margin_costs_log_2() -> None:
    margin = torch.tensor([1.0, 2 / 3, 1 / 3])
    assert ranking_loss(margin, torch.zeros(3), margin=margin).item() == pytest.approx(math.log(2))


def test_ranking_loss_depends_on_the_difference_only() -> None:
    torch.manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 7).unbind()
    shifted = ranking_loss(chosen + 2, rejected + 2, margin=margin)
    torch.testing.assert_close(ranking_loss(chosen, rejected, margin=margin), shifted)


def test_ranking_loss_is_float32_and_finite_for_huge_gaps() -> None:
    low, high = torch.tensor([-1e4], dtype=torch.bfloat16), torch.tensor([1e4], dtype=torch.bfloat16)
    loss = ranking_loss(low, high, margin=torch.zeros(1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2e4, rel=1e-2)


def test_safety_loss_of_a_score_at_the_threshold_is_log_2() -> None:
    loss = safety_auxiliary_loss(torch.zeros(2), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(math.log(2))


def test_safety_loss_pushes_safe_up_and_unsafe_down() -> None:
    scores = torch.zeros(2, requires_grad=True)
    safety_auxiliary_loss(scores, torch.tensor([True, False])).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [-0.25, 0.25]
