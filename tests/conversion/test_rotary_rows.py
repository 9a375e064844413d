"""Two orders of rows in wq and wk, and the way between them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.conversion.rotary_rows import interleave, is_rotated, separate


@given(n_heads=st.integers(1, 4), half=st.integers(1, 5), width=st.integers(1, 3))
def test_permutations_undo_each_other_and_pair_rows(n_heads: int, half: int, width: int) -> None:
    rows = torch.arange(n_heads * half * 2 * width).view(-1, width)
    meta = interleave(rows, head_dim=2 * half)
    assert torch.equal(separate(meta, head_dim=2 * half), rows)
    for head in range(n_heads):
        for i in range(half):
            start = head * 2 * half
            assert torch.equal(meta[start + 2 * i], rows[start + i])
            assert torch.equal(meta[start + 2 * i + 1], rows[start + half + i])


def test_queries_and_keys_are_turned_and_nothing_else() -> None:
    parts = ["q_proj", "k_proj", "v_proj", "o_proj"]
    names = [f"model.layers.1.self_attn.{part}.weight" for part in parts]
    assert [is_rotated(name) for name in names] == [True, True, False, False]
    assert not is_rotated("model.embed_tokens.weight")
