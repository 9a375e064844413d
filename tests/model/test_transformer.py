import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from puna.core.errors import ShapeError
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


def test_the_future_is_not_seen(model: Transformer) -> None:
    text = tokens(2, 10)
    changed = text.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 40
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
def test_packed_documents_equal_separate_ones(
    model: Transformer, lengths: list[int], n_filler: int, restart_positions: bool
) -> None:
    documents = [tokens(1, length, seed=i) for i, length in enumerate(lengths)]
    ids = [i for i, length in enumerate(lengths) for _ in range(length)] + [-1] * n_filler
    row = torch.cat([*documents, torch.zeros(1, n_filler, dtype=torch.long)], dim=1)
    restarted = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(n_filler, dtype=torch.long)])
    positions = restarted[None] if restart_positions else None
    packed = model(row, positions=positions, document_ids=torch.tensor([ids]))
    separate = torch.cat([model(document) for document in documents], dim=1)
    torch.testing.assert_close(packed[:, : sum(lengths)], separate, atol=1e-4, rtol=0)
    assert packed.isfinite().all()


@given(st.integers(1, 8), st.integers(0, 39))
def test_right_padding_is_not_seen(model: Transformer, n_padding: int, filler: int) -> None:
    text = tokens(2, 7)
    padded = F.pad(text, (0, n_padding), value=filler)
    torch.testing.assert_close(model(padded)[:, :7], model(text), atol=1e-5, rtol=0)


def test_same_seed_same_weights(tiny: ModelConfig) -> None:
    first, second, other = Transformer(tiny, seed=1), Transformer(tiny, seed=1), Transformer(tiny, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.output.weight, other.output.weight)


def test_residual_writers_are_scaled_by_depth(tiny: ModelConfig) -> None:
    """N(0, 1 / fan-in), embeddings N(0, 1); what writes to the stream is divided by sqrt(2 n_layers) = 4."""
    model = Transformer(tiny.model_copy(update={"n_layers": 8}))
    assert model.tok_embeddings.weight.std().item() == pytest.approx(1.0, rel=0.1)
    assert model.output.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert model.layers[3].attention.wo.weight.std().item() == pytest.approx(32**-0.5 / 4, rel=0.1)
    assert model.layers[3].feed_forward.w2.weight.std().item() == pytest.approx(48**-0.5 / 4, rel=0.1)
    assert model.layers[3].feed_forward.w1.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)


def test_tied_embeddings_are_small_enough_to_be_an_output_matrix(tiny: ModelConfig) -> None:
    model = Transformer(tiny.model_copy(update={"tie_embeddings": True}))
    assert model.tok_embeddings.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)


def test_untrained_loss_is_log_vocab_and_half_a_nat(tiny: ModelConfig) -> None:
    """Logits of variance 1 cost half of it on average."""
    text = tokens(8, 33)
    logits = Transformer(tiny)(text[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()).item()
    assert loss == pytest.approx(math.log(40) + 0.5, abs=0.25)


def test_bfloat16_autocast_trains_close_to_float32(tiny: ModelConfig) -> None:
    text = tokens(4, 17)
    gradients = []
    for is_enabled in (False, True):
        model = Transformer(tiny)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_enabled):
            logits = model(text[:, :-1])
        assert logits.dtype == torch.float32
        F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.999


def test_gradients_flow_to_every_weight_and_are_right(tiny: ModelConfig) -> None:
    model = Transformer(tiny).double()
    text = tokens(1, 6)
    ids = torch.tensor([[0, 0, 0, 1, 1, 1]])
    model(text, document_ids=ids).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_a_row_longer_than_the_context_is_refused(model: Transformer) -> None:
    with pytest.raises(ShapeError, match="at most 64 tokens"):
        model(tokens(1, 65))
