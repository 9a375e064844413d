import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from puna.model import attention
from puna.model.attention import attend, attention_mask


def heads(n_heads: int, n_tokens: int, *, seed: int) -> torch.Tensor:
    return torch.randn(2, n_heads, n_tokens, 8, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from([(4, 4), (4, 2), (6, 2), (4, 1)]), st.integers(1, 9))
def test_matmul_path_equals_torch_with_repeated_keys(n_heads: tuple[int, int], n_tokens: int) -> None:
    q, k, v = (heads(n, n_tokens, seed=i) for i, n in enumerate((n_heads[0], n_heads[1], n_heads[1])))
    n_repeats = n_heads[0] // n_heads[1]
    k_all, v_all = k.repeat_interleave(n_repeats, 1), v.repeat_interleave(n_repeats, 1)
    expected = F.scaled_dot_product_attention(q, k_all, v_all, is_causal=True)
    torch.testing.assert_close(attend(q, k, v, None), expected)


@pytest.mark.parametrize("document_ids", [None, torch.tensor([[0, 0, 1, 1, 1, -1], [0, 1, 1, 2, 2, 2]])])
def test_long_and_short_paths_agree(
    document_ids: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = heads(4, 6, seed=0), heads(2, 6, seed=1), heads(2, 6, seed=2)
    mask = attention_mask(document_ids)
    short = attend(q, k, v, mask)
    monkeypatch.setattr(attention, "MATMUL_MAX_KEYS", 0)
    torch.testing.assert_close(attend(q, k, v, mask), short)


def test_one_query_sees_all_cached_keys() -> None:
    q, k, v = heads(2, 1, seed=0), heads(2, 5, seed=1), heads(2, 5, seed=2)
    probs = (q @ k.transpose(2, 3) * 8**-0.5).softmax(-1)
    torch.testing.assert_close(attend(q, k, v, None), probs @ v)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12))
def test_mask_is_causal_and_block_diagonal(ids: list[int]) -> None:
    mask = attention_mask(torch.tensor([ids]))
    assert mask is not None
    for query in range(len(ids)):
        for key in range(len(ids)):
            is_seen = key <= query and ids[key] == ids[query]
            assert mask[0, 0, query, key].item() == (0.0 if is_seen else attention.MASKED)


def test_masked_scores_get_exactly_no_weight_and_empty_rows_stay_finite() -> None:
    mask = torch.tensor([0.0, attention.MASKED])
    assert mask.softmax(-1).tolist() == [1.0, 0.0]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.full((3,), attention.MASKED).to(dtype).softmax(-1).isfinite().all()
