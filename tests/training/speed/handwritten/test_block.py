"""The block with handwritten gradients is the plain block: closely in float64, up to rounding under autocast."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from puna.model.attention import AttentionMask, attention_mask
from puna.model.config import ModelConfig
from puna.model.rope import Rotation, rotation
from puna.model.transformer import Transformer, TransformerBlock
from puna.training.speed.handwritten import suits_block, train_block, weights_of
from puna.training.speed.handwritten.attention_heads import add_projected_heads, project_heads
from puna.training.speed.handwritten.causal_attention import attend_causally
from puna.training.speed.handwritten.feed_forward import feed_forward_sublayer

EPS = 1e-5


def draws(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    source = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return [torch.randn(shape, generator=source, dtype=dtype).requires_grad_() for shape in shapes]


sizes = st.integers(1, 3)


@settings(max_examples=10)
@given(n_rows=st.integers(1, 4), dim=st.integers(1, 5), hidden_dim=st.integers(1, 6))
def test_gradcheck_feed_forward(n_rows: int, dim: int, hidden_dim: int) -> None:
    given = draws((n_rows, dim), (dim,), (hidden_dim, dim), (dim, hidden_dim), (hidden_dim, dim))

    def apply(*tensors: Tensor) -> Tensor:
        return feed_forward_sublayer(*tensors, eps=EPS, dtype=torch.float64)

    assert torch.autograd.gradcheck(apply, given)


@settings(max_examples=10)
@given(batch=sizes, seq=sizes, dim=st.integers(1, 5), n_kv=sizes, n_shared=sizes, half=sizes)
def test_gradcheck_heads(batch: int, seq: int, dim: int, n_kv: int, n_shared: int, half: int) -> None:
    kv_dim = n_kv * 2 * half
    x, gain, wq, wk, wv = draws(
        (batch, seq, dim), (dim,), (n_shared * kv_dim, dim), (kv_dim, dim), (kv_dim, dim)
    )
    angles = torch.arange(float(seq * half), dtype=torch.float64).view(1, seq, 1, half)
    turns = torch.polar(torch.ones_like(angles), angles)

    def apply(*tensors: Tensor) -> tuple[Tensor, ...]:
        return project_heads(*tensors, turns, eps=EPS, dtype=torch.float64)

    assert torch.autograd.gradcheck(apply, (x, gain, wq, wk, wv))


@settings(max_examples=10)
@given(batch=sizes, seq=sizes, dim=st.integers(1, 5), n_heads=sizes, head_dim=sizes)
def test_gradcheck_residual(batch: int, seq: int, dim: int, n_heads: int, head_dim: int) -> None:
    given = draws((batch, seq, dim), (batch, n_heads, seq, head_dim), (dim, n_heads * head_dim))
    assert torch.autograd.gradcheck(add_projected_heads, given)


@settings(max_examples=10)
@given(batch=sizes, n_kv=sizes, n_shared=sizes, seq=st.integers(1, 6), head_dim=sizes, packed=st.booleans())
def test_gradcheck_attention(
    batch: int, n_kv: int, n_shared: int, seq: int, head_dim: int, packed: bool
) -> None:
    q, k, v = draws(*((batch, n, seq, head_dim) for n in (n_kv * n_shared, n_kv, n_kv)))
    ids = (torch.arange(seq) // 2).expand(batch, seq) if packed else torch.zeros(1, seq, dtype=torch.int64)
    mask = attention_mask(ids)
    assert isinstance(mask, Tensor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("puna.training.speed.handwritten.causal_attention.QUERY_BLOCK", 2)
        scores = q @ k.repeat_interleave(n_shared, 1).transpose(2, 3) / head_dim**0.5 + mask
        expected = scores.softmax(-1) @ v.repeat_interleave(n_shared, 1)
        torch.testing.assert_close(attend_causally(q, k, v, mask), expected)
        assert torch.autograd.gradcheck(lambda *qkv: attend_causally(*qkv, mask), (q, k, v))


@pytest.fixture(scope="module")
def block() -> TransformerBlock:
    config = ModelConfig(
        dim=32, n_layers=1, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=600
    )
    made = Transformer(config, seed=3).layers[0]
    assert isinstance(made, TransformerBlock)
    with torch.no_grad():
        for gain in (made.attention_norm.weight, made.ffn_norm.weight):
            gain.copy_(torch.linspace(0.5, 2, 32))
    return made


Gradients = tuple[Tensor, list[Tensor]]


def run(block: TransformerBlock, n_tokens: int, packed: bool, forward: Callable[..., Tensor]) -> Gradients:
    source = torch.Generator().manual_seed(n_tokens)
    x = torch.randn(2, n_tokens, 32, generator=source).requires_grad_()
    upstream = torch.randn(2, n_tokens, 32, generator=source)
    ids = (torch.arange(n_tokens) // 7).expand(2, n_tokens) if packed else None
    angles = rotation(torch.arange(n_tokens)[None], head_dim=8, theta=10_000.0)
    out = forward(x, angles, attention_mask(ids), None)
    return out.detach(), list(torch.autograd.grad((out * upstream).sum(), [x, *block.parameters()]))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("n_tokens", [2, 65, 130, 400])
def test_under_autocast_it_is_as_near_to_float32_as_the_plain_block(
    block: TransformerBlock, n_tokens: int, packed: bool
) -> None:
    """Of output and every gradient, the error is at most 1.5 times the plain block's (and 2 % at most)."""
    exact, exact_gradients = run(block, n_tokens, packed, block)

    def by_hand(x: Tensor, angles: Rotation, mask: AttentionMask, _: None) -> Tensor:
        return train_block(x, weights_of(block), angles, mask, eps=block.attention_norm.eps)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, our_gradients = run(block, n_tokens, packed, by_hand)
        plain, plain_gradients = run(block, n_tokens, packed, block)
    pairs = zip([ours, *our_gradients], [plain, *plain_gradients], [exact, *exact_gradients], strict=True)
    for mine, theirs, truth in pairs:
        assert mine.dtype == theirs.dtype == torch.float32
        assert relative(mine, truth) < max(1.5 * relative(theirs, truth), 1e-3) < 0.03


def test_it_stands_aside_where_the_plain_block_is_wanted(block: TransformerBlock) -> None:
    x, weight = torch.ones(1, 2, 32), block.ffn_norm.weight
    assert not suits_block(x, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert suits_block(x, weight)
        assert not suits_block(x, weight.bfloat16())
        with torch.no_grad():
            assert not suits_block(x, weight)
