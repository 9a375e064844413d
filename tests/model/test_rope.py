import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.model.rope import rotate, rotation


def at(position: int, x: torch.Tensor, theta: float = 10_000.0) -> torch.Tensor:
    angles = rotation(torch.tensor([[position]]), head_dim=x.numel(), theta=theta)
    return rotate(x[None, None, None], angles).flatten()


def test_rotation_is_the_complex_product_of_meta_in_the_other_layout() -> None:
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0))
    frequencies = 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    turns = torch.polar(torch.ones(5, 4), torch.outer(torch.arange(5.0), frequencies))[None, :, None]
    expected = torch.complex(x[..., :4], x[..., 4:]) * turns
    ours = rotate(x, rotation(torch.arange(5)[None], head_dim=8, theta=10_000.0))
    torch.testing.assert_close(ours, torch.cat((expected.real, expected.imag), dim=-1))


def test_position_zero_changes_nothing() -> None:
    x = torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(at(0, x), x)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_scores_depend_on_distance_only(query: int, key: int, shift: int) -> None:
    source = torch.Generator().manual_seed(1)
    q, k = torch.randn(16, generator=source), torch.randn(16, generator=source)
    torch.testing.assert_close(
        at(query, q) @ at(key, k), at(query + shift, q) @ at(key + shift, k), atol=1e-2, rtol=0
    )


def test_theta_matters() -> None:
    x = torch.ones(16)
    assert not torch.allclose(at(7, x), at(7, x, theta=500.0))


def test_angles_stay_float32_and_the_result_keeps_its_dtype() -> None:
    angles = rotation(torch.tensor([[4095]]), head_dim=8, theta=10_000.0)
    assert angles[0].dtype == torch.float32
    assert rotate(torch.ones(1, 1, 1, 8, dtype=torch.bfloat16), angles).dtype == torch.bfloat16
