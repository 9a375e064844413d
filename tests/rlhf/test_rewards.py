"""Closed forms of the composite reward (§3.2.3)."""

import pytest
import torch

from puna.rlhf.rewards import (
    RewardConfig,
    composite_score,
    token_rewards,
    whiten,
    whiten_in_scope,
    without_eos,
)

THRESHOLD = RewardConfig().safety_threshold


def test_composite_takes_safety_for_tagged_or_unsafe_and_helpfulness_otherwise() -> None:
    helpfulness = torch.tensor([1.0, 1.0, 1.0, 1.0])
    edge = torch.logit(torch.tensor(0.15)).item()
    safety = torch.tensor([3.0, 3.0, edge - 1e-3, edge + 1e-3])
    is_safety = torch.tensor([True, False, False, False])
    score = composite_score(helpfulness, safety, is_safety, threshold=THRESHOLD)
    assert score.tolist() == pytest.approx([3.0, 1.0, edge - 1e-3, 1.0])


def test_composite_is_the_logit_of_the_papers_probability() -> None:
    logits = torch.linspace(-4, 4, 9)
    helpfulness, safety = torch.meshgrid(logits, logits, indexing="ij")
    helpfulness, safety = helpfulness.flatten(), safety.flatten()
    tagged = torch.zeros(81, dtype=torch.bool)
    prob = torch.where(safety.sigmoid() < 0.15, safety.sigmoid(), helpfulness.sigmoid())
    score = composite_score(helpfulness, safety, tagged, threshold=0.15)
    torch.testing.assert_close(score, torch.logit(prob), rtol=1e-4, atol=1e-4)


def test_composite_keeps_logits_that_a_sigmoid_would_flatten() -> None:
    score = composite_score(torch.tensor([40.0, 60.0]), torch.zeros(2), torch.zeros(2).bool(), threshold=0.15)
    assert score.tolist() == [40.0, 60.0]


def test_whiten_ignores_what_the_mask_hides() -> None:
    values = torch.tensor([[1.0, 3.0, 1e6], [5.0, 7.0, -1e6]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    white = whiten(values, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].var(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert white[~mask].tolist() == [0, 0]


def test_whiten_of_equal_values_is_zero() -> None:
    assert whiten(torch.full((4,), 2.5), torch.ones(4).bool()).tolist() == [0, 0, 0, 0]


def test_whitening_by_tag_centers_tagged_and_other_prompts() -> None:
    scores = torch.tensor([0.0, 2.0, 100.0, 104.0])
    is_safety = torch.tensor([False, False, True, True])
    white = whiten_in_scope(scores, is_safety, RewardConfig(whiten_scope="is_safety"))
    torch.testing.assert_close(white, torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert whiten_in_scope(scores, is_safety, RewardConfig(whiten_scope="none")) is scores


def test_token_rewards_sum_to_the_papers_reward() -> None:
    scores = torch.tensor([0.5, -1.0])
    kl = torch.tensor([[0.2, -0.1, 0.3], [0.4, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = token_rewards(scores, kl, mask, kl_coef=0.1)
    torch.testing.assert_close(rewards.sum(1), scores - 0.1 * torch.tensor([0.4, 0.4]))
    assert rewards[1, 1:].tolist() == [0, 0]
    assert rewards[0, 0].item() == pytest.approx(-0.02)


def test_negative_kl_is_not_clamped() -> None:
    rewards = token_rewards(torch.zeros(1), torch.tensor([[-2.0]]), torch.ones(1, 1).bool(), kl_coef=0.5)
    assert rewards.item() == 1.0


def test_missing_eos_is_penalised_or_replaced_only_where_cut() -> None:
    scores, finished = torch.tensor([2.0, 2.0]), torch.tensor([True, False])
    assert without_eos(scores, finished, RewardConfig(missing_eos_penalty=1.5)).tolist() == [2.0, 0.5]
    assert without_eos(scores, finished, RewardConfig(missing_eos_score=-4.0)).tolist() == [2.0, -4.0]
    assert without_eos(scores, finished, RewardConfig(missing_eos_penalty=0)).tolist() == [2.0, 2.0]
