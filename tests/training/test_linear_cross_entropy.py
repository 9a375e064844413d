"""Against F.cross_entropy, values and gradients; and what is never held."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from puna.training import linear_cross_entropy as module
from puna.training.linear_cross_entropy import IGNORED, linear_cross_entropy


def inputs(
    n_rows: int, dim: int, vocab_size: int, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(n_rows * 1000 + dim * 10 + vocab_size)
    hidden = torch.randn(n_rows, dim, generator=source, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab_size, dim, generator=source, dtype=dtype).requires_grad_()
    targets = torch.randint(0, vocab_size, (n_rows,), generator=source)
    return hidden, weight, targets


@given(
    n_rows=st.integers(1, 40),
    dim=st.integers(1, 9),
    vocab_size=st.integers(1, 30),
    chunk=st.integers(1, 45),
    share_ignored=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_values_and_gradients_are_those_of_cross_entropy(
    n_rows: int, dim: int, vocab_size: int, chunk: int, share_ignored: float
) -> None:
    hidden, weight, targets = inputs(n_rows, dim, vocab_size)
    is_ignored = torch.rand(n_rows, generator=torch.Generator().manual_seed(chunk)) < share_ignored
    targets = targets.masked_fill(is_ignored, IGNORED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.CHUNK_ROWS, "cpu", chunk)
        nats = linear_cross_entropy(hidden, weight, targets)
        with torch.no_grad():
            torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), nats.detach())
    expected = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum", ignore_index=IGNORED)
    torch.testing.assert_close(nats, expected, atol=1e-4, rtol=1e-5)
    found = torch.autograd.grad(3 * nats, (hidden, weight))
    for ours, theirs in zip(found, torch.autograd.grad(3 * expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_gradcheck() -> None:
    hidden, weight, targets = inputs(5, 3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


def test_a_target_of_no_probability_costs_its_logit_gap() -> None:
    """exp(-2000) is 0 in float32; the loss is still 2000 nats, where log(softmax) would be infinite."""
    hidden, weight = torch.ones(1, 1), torch.tensor([[1000.0], [-1000.0]])
    assert linear_cross_entropy(hidden, weight, torch.tensor([1])).item() == 2000


def test_uniform_logits_cost_log_vocab_size_in_bfloat16_too() -> None:
    hidden, weight, targets = inputs(300, 8, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = linear_cross_entropy(hidden, torch.zeros_like(weight), targets)
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(300 * math.log(50), rel=1e-6)


def test_only_what_wants_a_gradient_gets_one() -> None:
    hidden, weight, targets = inputs(6, 4, 9)
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_under_autocast_the_loss_differs_from_float32_by_bfloat16_s_rounding_only() -> None:
    hidden, weight, targets = inputs(600, 64, 500)
    exact = linear_cross_entropy(hidden, weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = linear_cross_entropy(hidden, weight, targets)
    assert low.item() == pytest.approx(exact.item(), rel=2e-3)
    wanted = torch.autograd.grad(exact, (hidden, weight))
    for ours, theirs in zip(torch.autograd.grad(low, (hidden, weight)), wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert ((ours - theirs).norm() / theirs.norm()).item() < 0.02


class LargestResult(TorchDispatchMode):
    """The most numbers that any operation's result held."""

    n_numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.n_numbers = max(self.n_numbers, tensor.numel())
        return result


def test_the_full_logits_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHUNK_ROWS, "cpu", 16)
    hidden, weight, targets = inputs(256, 4, 64)
    with LargestResult() as largest:
        linear_cross_entropy(hidden, weight, targets).backward()
    assert largest.n_numbers == 16 * 64 == 256 * 4
