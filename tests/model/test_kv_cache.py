import pytest
import torch

from puna.model import attention
from puna.model.config import ModelConfig
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer


@pytest.fixture(params=["matmul", "fused"], autouse=True)
def _attention_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every claim holds on the path of short contexts and on that of long ones."""
    if request.param == "fused":
        monkeypatch.setattr(attention, "MATMUL_MAX_KEYS", 0)


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pieces", [[12], [1] * 12, [7, 1, 4], [5, 1, 1, 1, 4]])
def test_cache_on_equals_cache_off(model: Transformer, tiny: ModelConfig, pieces: list[int]) -> None:
    text = tokens(3, 12)
    cache = KVCache(tiny, batch_size=3, max_len=12)
    logits = torch.cat([model(part, cache=cache) for part in text.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(text), atol=1e-4, rtol=0)
    assert cache.length == 12


def test_left_padding_is_not_seen(model: Transformer, tiny: ModelConfig) -> None:
    text = tokens(1, 9)
    for filler in (0, 1, 39):
        padded = torch.cat((torch.full((1, 4), filler), text), dim=1)
        n_padding = torch.tensor([4, 0])
        cache = KVCache(tiny, batch_size=2, max_len=13, n_padding=n_padding)
        both = torch.cat((padded, tokens(1, 13, seed=1)))
        logits = torch.cat([model(part, cache=cache) for part in both.split([10, 1, 2], dim=1)], dim=1)
        torch.testing.assert_close(logits[:1, 4:], model(text), atol=1e-4, rtol=0)
        assert logits.isfinite().all()


def test_selected_rows_continue_as_if_alone(model: Transformer, tiny: ModelConfig) -> None:
    text = tokens(3, 8)
    cache = KVCache(tiny, batch_size=3, max_len=8)
    model(text[:, :6], cache=cache)
    cache.select(torch.tensor([2, 0, 2]))
    logits = model(text[[2, 0, 2], 6:], cache=cache)
    torch.testing.assert_close(logits, model(text)[[2, 0, 2], 6:], atol=1e-4, rtol=0)
