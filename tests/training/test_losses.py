"""Closed forms first, then what masking must not change."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from puna.training.losses import next_token_loss


class Projection(nn.Module):
    """A vocabulary projection and nothing else."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, vocab_size, bias=False)

    @property
    def output_weight(self) -> torch.Tensor:
        return self.linear.weight


class LogitRows(TorchDispatchMode):
    """How many rows as wide as the vocabulary are made by products."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.n_rows = vocab_size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default and result.shape[1] == self.vocab_size:
            self.n_rows += len(result)
        return result


@pytest.fixture
def example() -> tuple[Projection, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 5, 8, requires_grad=True)
    return Projection(8, 11), hidden, torch.randint(0, 11, (3, 5)), torch.rand(3, 5) < 0.4


def test_uniform_prediction_costs_log_vocab_size_per_target() -> None:
    model = Projection(8, 11)
    nn.init.zeros_(model.linear.weight)
    nats, n_targets = next_token_loss(model, torch.randn(2, 4, 8), torch.zeros(2, 4, dtype=torch.int64), None)
    assert n_targets == 8
    assert nats.item() == pytest.approx(8 * math.log(11), rel=1e-6)


def test_masked_loss_equals_cross_entropy_with_ignored_targets(example) -> None:
    model, hidden, targets, mask = example
    nats, n_targets = next_token_loss(model, hidden, targets, mask)
    ignored = targets.masked_fill(~mask, -100)
    expected = F.cross_entropy(model.linear(hidden).flatten(0, 1), ignored.flatten(), reduction="sum")
    assert n_targets == mask.sum()
    torch.testing.assert_close(nats, expected)
    (gradient,) = torch.autograd.grad(nats, hidden, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected, hidden)
    torch.testing.assert_close(gradient, expected_gradient)


def test_logits_are_made_at_masked_positions_only(example) -> None:
    model, hidden, targets, mask = example
    with LogitRows(11) as made:
        next_token_loss(model, hidden, targets, mask)
    assert 0 < made.n_rows <= mask.numel()


def test_nothing_masked_in_costs_nothing_and_stays_finite(example) -> None:
    model, hidden, targets, mask = example
    nats, n_targets = next_token_loss(model, hidden, targets, torch.zeros_like(mask))
    assert (nats.item(), n_targets) == (0.0, 0)


def test_filler_rows_come_up_to_one_multiple_and_count_for_nothing() -> None:
    """300 of 2,000 positions are trained: 512 logits are made, and the loss is that of the 300."""
    model = Projection(8, 11)
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 1000, 8, generator=source)
    targets = torch.randint(0, 11, (2, 1000), generator=source)
    mask = torch.zeros(2, 1000, dtype=torch.bool)
    mask[:, 100:250] = True
    with LogitRows(11) as made:
        loss, n_targets = next_token_loss(model, hidden, targets, mask)
    assert (made.n_rows, n_targets) == (512, 300)
    expected = torch.nn.functional.cross_entropy(model.linear(hidden[mask]), targets[mask], reduction="sum")
    torch.testing.assert_close(loss, expected)
