import pytest
import torch
from torch.nn import functional as F

from puna.inference import logprobs
from puna.inference.logprobs import gather_logprobs, token_logprobs
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


def test_gathered_values_are_the_log_softmax() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([[0, 1, 2], [4, 4, 0]])
    expected = logits.log_softmax(-1).gather(-1, chosen[..., None]).squeeze(-1)
    torch.testing.assert_close(gather_logprobs(logits, chosen), expected)


def test_uniform_logits_give_minus_log_vocab() -> None:
    values = gather_logprobs(torch.zeros(1, 40, dtype=torch.bfloat16), torch.tensor([3]))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, -torch.tensor([40.0]).log())


@pytest.mark.parametrize("max_chunk", [1, 5 * 40, 2**26])
def test_each_value_is_of_the_next_token(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, max_chunk: int
) -> None:
    monkeypatch.setattr(logprobs, "MAX_CHUNK_LOGITS", max_chunk)
    text = tokens(3, 9)
    nats = -F.cross_entropy(model(text)[:, :-1].transpose(1, 2), text[:, 1:], reduction="none")
    torch.testing.assert_close(token_logprobs(model, text), nats, atol=1e-5, rtol=1e-5)


def test_probabilities_of_all_continuations_sum_to_one(model: Transformer) -> None:
    rows = torch.cat((tokens(1, 6).expand(40, -1), torch.arange(40)[:, None]), dim=1)
    assert token_logprobs(model, rows)[:, -1].exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_packed_rows_equal_separate_ones(model: Transformer) -> None:
    first, second = tokens(1, 5), tokens(1, 4, seed=1)
    ids = torch.tensor([[0] * 5 + [1] * 4])
    packed = token_logprobs(model, torch.cat((first, second), dim=1), document_ids=ids)
    torch.testing.assert_close(packed[:, :4], token_logprobs(model, first), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed[:, 5:], token_logprobs(model, second), atol=1e-5, rtol=1e-5)


def test_gradients_flow(tiny: ModelConfig) -> None:
    model = Transformer(tiny)
    token_logprobs(model, tokens(2, 5)).sum().backward()
    assert model.tok_embeddings.weight.grad.abs().sum() > 0
