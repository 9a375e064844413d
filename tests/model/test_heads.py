import torch

from puna.model.config import ModelConfig
from puna.model.heads import ScoreModel
from puna.model.transformer import Transformer


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(0))


def test_score_is_the_head_on_the_trunks_state(tiny: ModelConfig) -> None:
    model = ScoreModel(Transformer(tiny))
    text = tokens(3, 7)
    torch.testing.assert_close(model(text), model.score(model.trunk.hidden(text)).squeeze(-1))
    assert model(text).shape == (3, 7)


def test_the_next_token_head_is_replaced(tiny: ModelConfig) -> None:
    names = {name for name, _ in ScoreModel(Transformer(tiny)).named_parameters()}
    assert "trunk.output.weight" not in names
    assert "score.weight" in names


def test_first_scores_are_small_and_seeded(tiny: ModelConfig) -> None:
    first, again, other = (ScoreModel(Transformer(tiny), seed=seed)(tokens(8, 16)) for seed in (0, 0, 1))
    assert first.std() < 0.3
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_packed_dialogs_score_as_separate_ones(tiny: ModelConfig) -> None:
    model = ScoreModel(Transformer(tiny))
    first, second = tokens(2, 5).split(1)
    ids = torch.tensor([[0] * 5 + [1] * 5])
    packed = model(torch.cat((first, second), dim=1), None, ids)
    torch.testing.assert_close(packed, torch.cat((model(first), model(second)), dim=1), atol=1e-5, rtol=0)


def test_gradients_reach_head_and_trunk_under_autocast(tiny: ModelConfig) -> None:
    model = ScoreModel(Transformer(tiny))
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(tokens(2, 5))
    assert scores.dtype == torch.float32
    scores[:, -1].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert model.trunk.tok_embeddings.weight.grad.abs().sum() > 0
