"""Both ways to read single tokens' blocks find what a plain softmax over their own texts finds."""

import math

import numpy as np
import pytest
import torch

from puna.inference.attention_plan import Heads, Pieces, plan_attention
from puna.inference.paged_cache import Alone, PagedCache, Pairs
from puna.model.blockwise_attention import BLOCK_TOKENS
from puna.model.config import ModelConfig

CONFIG = ModelConfig(dim=32, n_layers=1, n_heads=4, n_kv_heads=2, vocab_size=11, hidden_dim=32)
LENGTHS = np.array([1, 64, 65, 130])
TABLES = np.array([[5, 0, 0], [2, 0, 0], [2, 7, 0], [2, 3, 1]])
"""The last three share their first block."""


@pytest.mark.parametrize("gathers", [False, True], ids=["pairs", "gathered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_token_sees_its_own_text(gathers: bool, dtype: torch.dtype) -> None:
    """`gathered` is how CUDA reads, with its filling up to more rows and places than there are."""
    cache = PagedCache(CONFIG, n_blocks=8, dtype=dtype)
    source = torch.Generator().manual_seed(0)
    for buffer in (cache.keys, cache.values):
        buffer.copy_(torch.randn(buffer.shape, generator=source))
    pieces = Pieces(TABLES, LENGTHS - 1, np.ones(4, dtype=np.int64), np.array([0, 64, 64, 64]))
    heads = Heads.of(CONFIG, is_picky=dtype == torch.float32)
    cache.plan = plan_attention(
        pieces, heads, n_rows=16, n_blocks=8, gathers=gathers, n_places=4, dtype=dtype
    )
    q, k, v = (torch.randn(16, 1, n, 8, generator=source).to(dtype) for n in (4, 2, 2))
    before = cache.keys[0, 2].clone()
    found = cache.attend(0, q, k, v).view(16, 4, 8).float()
    assert torch.equal(cache.keys[0, 2], before), "a block that others read was written"
    assert torch.isfinite(found).all()
    for row, length in enumerate(LENGTHS.tolist()):
        blocks = TABLES[row, : -(-length // BLOCK_TOKENS)]
        keys, values = (
            torch.cat([x[0, block] for block in blocks], dim=1)[:, :length].float()
            for x in (cache.keys, cache.values)
        )  # (kv_head, key, head_dim)
        if length - 1 >= pieces.n_shared[row]:
            assert torch.equal(keys[:, -1].to(dtype), k[row, 0])
        grouped = q[row, 0].float().view(2, 2, 8)
        probs = (grouped @ keys.transpose(1, 2) / math.sqrt(8)).softmax(-1)
        tolerance = 1e-5 if dtype == torch.float32 else 0.03
        torch.testing.assert_close(found[row], (probs @ values).view(4, 8), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200, 1100])
@pytest.mark.parametrize("is_scattered", [False, True], ids=["side by side", "scattered"])
@pytest.mark.parametrize(
    ("dtype", "n_heads"), [(torch.bfloat16, 6), (torch.float32, 8)], ids=["bf16", "fp32"]
)
def test_a_token_alone_has_the_bits_it_has_beside_another(
    dtype: torch.dtype, n_heads: int, is_scattered: bool, length: int
) -> None:
    """The plan of one token has no tables; its sums are those of the plan of many."""
    config = ModelConfig(
        dim=64 * n_heads,
        n_layers=1,
        n_heads=n_heads,
        n_kv_heads=2,
        vocab_size=11,
        hidden_dim=32,
        max_seq_len=2048,
    )
    source = torch.Generator().manual_seed(length)
    n_places = -(-length // BLOCK_TOKENS)
    table = np.arange(3, 3 + n_places)
    if is_scattered:
        table = 3 + np.random.default_rng(length).permutation(30)[:n_places]
    tables = np.zeros((2, n_places), dtype=np.int64)
    tables[0], tables[1, 0] = table, 1
    q, k, v = (torch.randn(2, 1, n, 64, generator=source).to(dtype) for n in (n_heads, 2, 2))
    keys, values = torch.randn(2, 1, 40, 2, BLOCK_TOKENS, 64, generator=source).to(dtype)
    heads = Heads.of(config, is_picky=dtype == torch.float32)
    found = []
    for n_tokens, kind in ((1, Alone), (2, Pairs)):
        pieces = Pieces(
            tables[:n_tokens],
            np.array([length - 1, 0])[:n_tokens],
            np.ones(n_tokens, dtype=np.int64),
            np.zeros(n_tokens, dtype=np.int64),
        )
        cache = PagedCache(config, n_blocks=40, dtype=dtype)
        cache.keys.copy_(keys)
        cache.values.copy_(values)
        cache.plan = plan_attention(pieces, heads, n_rows=2, n_blocks=40, dtype=dtype)
        assert isinstance(cache.plan.singles, kind)
        found.append(cache.attend(0, q, k, v))
        assert found[-1].shape == (2, 1, config.q_dim)
        assert torch.isfinite(found[-1]).all()
    assert torch.equal(found[0][0], found[1][0])
