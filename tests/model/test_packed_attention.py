"""The block mask of CUDA against the dense mask of the CPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from puna.model import attention, packed_attention
from puna.model.attention import attend, attention_mask
from puna.model.config import ModelConfig
from puna.model.packed_attention import attend_packed, packed_mask, suits_flex
from puna.model.transformer import Transformer

ROWS = st.lists(st.lists(st.integers(-1, 3), min_size=9, max_size=9), min_size=1, max_size=3).map(
    torch.tensor
)


def heads(n_rows: int, n_heads: int, n_tokens: int, *, seed: int, width: int = 8) -> torch.Tensor:
    return torch.randn(n_rows, n_heads, n_tokens, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(ROWS)
def test_who_sees_whom_is_the_same_in_both_masks(ids: torch.Tensor) -> None:
    blocks, dense = packed_mask(ids), attention_mask(ids)
    assert isinstance(dense, torch.Tensor)
    is_seen = create_mask(blocks.mask_mod, len(ids), None, ids.shape[1], ids.shape[1], device="cpu")
    assert torch.equal(is_seen, dense == 0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (6, 2), (3, 1)])
def test_both_masks_give_the_same_attention(n_heads: int, n_kv_heads: int) -> None:
    """Rows of several blocks and of a length that no block divides."""
    n_tokens = 300
    ids = torch.arange(n_tokens).div(70, rounding_mode="floor").repeat(2, 1)
    ids[1, 200:] = -1
    q, k, v = (heads(2, n, n_tokens, seed=i) for i, n in enumerate((n_heads, n_kv_heads, n_kv_heads)))
    dense = attend(q, k, v, attention_mask(ids))
    torch.testing.assert_close(attend_packed(q, k, v, packed_mask(ids)), dense, atol=1e-5, rtol=1e-5)


def test_blocks_without_a_seen_pair_are_skipped() -> None:
    ids = torch.arange(512)[None] // 128
    assert packed_mask(ids).to_dense().squeeze().tolist() == torch.eye(4).int().tolist()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_whole_model_takes_either_mask(
    model: Transformer, tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[0] * 7 + [1] * 9 + [-1] * 4, [0] * 20])
    dense = model(tokens, document_ids=ids)
    monkeypatch.setattr(attention, "suits_flex", lambda device, head_dim: True)
    torch.testing.assert_close(model(tokens, document_ids=ids), dense, atol=1e-4, rtol=0)


def test_where_the_kernel_runs() -> None:
    assert not suits_flex(torch.device("cpu"), 128)
    assert suits_flex(torch.device("cuda"), 128)
    assert not suits_flex(torch.device("cuda"), packed_attention.FLEX_MIN_HEAD_DIM - 8)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_values_and_gradients_are_those_of_the_dense_mask(dtype: torch.dtype) -> None:
    n_tokens = 300
    ids = torch.arange(n_tokens, device="cuda").div(70, rounding_mode="floor").repeat(2, 1)
    ids[1, 200:] = -1
    results = []
    for mask in (packed_mask(ids), attention_mask(ids)):
        q, k, v = (
            heads(2, n, n_tokens, seed=i, width=64).to("cuda", dtype).requires_grad_()
            for i, n in enumerate((6, 2, 2))
        )
        out = attend(q, k, v, mask)
        (out * heads(2, 6, n_tokens, seed=3, width=64).to("cuda", dtype)).sum().backward()
        results.append([out, q.grad, k.grad, v.grad])
    tolerance = 1e-2 if dtype == torch.float32 else 6e-2  # TF32 products in the compiled kernel
    for flex, dense in zip(*results, strict=True):
        torch.testing.assert_close(flex, dense, atol=tolerance, rtol=tolerance)
