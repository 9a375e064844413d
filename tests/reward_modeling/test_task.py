"""The loss of a batch of pairs: closed forms, and that cutting the batch changes nothing."""

import math
from pathlib import Path

import pytest
import torch

from puna.model import ScoreModel, load_score_model
from puna.reward_modeling.encoding import EncodedPair, encode_pairs
from puna.reward_modeling.margins import MARGINS
from puna.reward_modeling.task import RankingTask
from puna.tokenizer import Tokenizer
from puna.training import ShuffledOrder
from ranked_pairs import comparison

N_PAIRS = 12


def task_of(
    model: ScoreModel, pairs: list[EncodedPair], *, size: int, weight: float = 0.0, margin: str = "small"
):
    return RankingTask(
        model,
        train=pairs,
        test=pairs[:4],
        order=ShuffledOrder(len(pairs), batch_size=N_PAIRS, seed=0, n_epochs=1),
        micro_batch_size=size,
        test_batch_size=8,
        margin=margin,
        safety_loss_weight=weight,
    )


@pytest.fixture
def pairs(world: dict[str, Path]) -> list[EncodedPair]:
    mixed = [comparison(i, guideline="safety" if i % 3 else "helpfulness") for i in range(N_PAIRS)]
    return encode_pairs(mixed, Tokenizer.load(world["safety"]))[0]


def test_equal_scores_cost_what_the_margins_say(world: dict[str, Path], pairs: list[EncodedPair]) -> None:
    """A head of zeros: log(1 + exp(m)) a pair, and log 2 for each labelled response, two of them to a pair."""
    model = load_score_model(world["safety"], device="cpu")
    torch.nn.init.zeros_(model.score.weight)
    task = task_of(model, pairs, size=N_PAIRS, weight=0.5, margin="large")
    (batch,) = task.micro_batches(0)
    loss = task.loss(batch)
    ranking = sum(math.log1p(math.exp(MARGINS["large"][pair.comparison.rating])) for pair in pairs)
    n_labelled_pairs = sum(pair.comparison.safety is not None for pair in pairs)
    assert loss.sum.item() == pytest.approx(ranking + 0.5 * n_labelled_pairs * math.log(2), rel=1e-5)
    assert loss.n_targets == N_PAIRS


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_micro_batches_change_neither_loss_nor_gradient(
    world: dict[str, Path], pairs: list[EncodedPair], weight: float
) -> None:
    """Labelled and unlabelled pairs fall unevenly on the pieces; still every response weighs alike."""
    results = []
    for size in (N_PAIRS, 5, 1):
        model = load_score_model(world["safety"], device="cpu")
        task = task_of(model, pairs, size=size, weight=weight)
        losses = [task.loss(batch) for batch in task.micro_batches(0)]
        total = torch.stack([loss.sum for loss in losses]).sum()
        total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((total.detach(), gradient))
    for total, gradient in results[1:]:
        torch.testing.assert_close(total, results[0][0])
        torch.testing.assert_close(gradient, results[0][1], atol=1e-4, rtol=1e-4)


def test_an_update_is_a_function_of_its_step(world: dict[str, Path], pairs: list[EncodedPair]) -> None:
    model = load_score_model(world["safety"], device="cpu")
    first, second = (task_of(model, pairs, size=5).micro_batches(0) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.rows.tokens, two.rows.tokens)
    assert sum(map(len, first)) == N_PAIRS


def test_evaluate_is_the_loss_and_accuracy_of_the_held_out_pairs(
    world: dict[str, Path], pairs: list[EncodedPair]
) -> None:
    model = load_score_model(world["safety"], device="cpu").eval()
    found = task_of(model, pairs, size=5).evaluate()
    whole = task_of(model, pairs[:4], size=5)
    losses = [whole.loss(batch) for batch in whole.micro_batches(0)]
    assert found["loss"] == pytest.approx(sum(loss.sum.item() for loss in losses) / 4, rel=1e-4)
    assert found["accuracy"] == sum(float(loss.metrics["accuracy"]) for loss in losses) / 4
