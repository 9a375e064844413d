"""Measures of held-out text against closed forms and against plain forward passes."""

import math

import pytest
import torch
from torch import Tensor, nn

from puna.evaluation.text.continuations import choice_hits, choice_items
from puna.evaluation.text.positions import perplexity_by_position, windowed_logprobs
from puna.evaluation.text.recall import recall_hits, recall_rows
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

SIZES = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=40, hidden_dim=32, max_seq_len=24)


@pytest.fixture
def model() -> Transformer:
    return Transformer(SIZES, seed=3).eval()


def rows(n_rows: int, n_tokens: int) -> Tensor:
    return torch.randint(3, 40, (n_rows, n_tokens), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("context", [1, 4, 7, 19, 24])
def test_windows_see_a_bounded_context(model: Transformer, context: int) -> None:
    given = rows(2, 20)
    with torch.no_grad():
        found = windowed_logprobs(model, given, context=context)
        for target in range(1, 20):
            # the window that scores this target ends at the end of its stride
            stride = max(1, context // 4)
            if target <= context:
                start = 0
            else:
                end = min(19, context + math.ceil((target - context) / stride) * stride)
                start = end - context
            logits = model(given[:, start:target])[:, -1]
            expected = logits.log_softmax(-1).gather(1, given[:, target : target + 1]).squeeze(1)
            torch.testing.assert_close(found[:, target - 1], expected, atol=1e-5, rtol=1e-5)


def test_every_context_is_at_least_three_quarters(model: Transformer) -> None:
    given = rows(1, 21)
    changed = given.clone()
    changed[0, 8] = 39 - changed[0, 8] % 30
    with torch.no_grad():
        before = windowed_logprobs(model, given, context=8)[0]
        after = windowed_logprobs(model, changed, context=8)[0]
    differs = [bool(before[t] != after[t]) for t in range(20)]  # t scores the token at t + 1
    assert differs[8:14] == [True] * 6, "token 8 is in sight of the six after it at least"
    assert not any(differs[16:]), "and of none beyond the context"


def test_perplexity_by_position_is_the_exponential_mean() -> None:
    logprobs = -torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 6.0]])
    groups = perplexity_by_position(logprobs, (2, 4, 64))
    assert groups.keys() == {"1-2", "2-4", "4-5"}
    assert groups["1-2"] == {"perplexity": pytest.approx(math.e), "loss": 1.0, "n": 2}
    assert groups["2-4"]["loss"] == pytest.approx(2.5)
    assert groups["4-5"]["perplexity"] == pytest.approx(math.exp(5))


def documents(n: int, n_tokens: int) -> list[Tensor]:
    return [torch.cat([torch.tensor([1]), row]) for row in rows(n, n_tokens - 1)]


def test_choices_share_their_opening_and_differ_in_their_end() -> None:
    items = choice_items(
        documents(6, 20), n_tokens=16, continuation_tokens=4, n_choices=3, max_items=5, seed=0
    )
    assert len(items) == 5
    for item in items:
        assert item.shape == (3, 16)
        assert (item[:, :12] == item[0, :12]).all()
        assert len({tuple(row[12:].tolist()) for row in item}) == 3
    owners = {tuple(document[:16].tolist()) for document in documents(6, 20)}
    assert all(tuple(item[0].tolist()) in owners for item in items)
    assert (
        choice_items(documents(2, 20), n_tokens=16, continuation_tokens=4, n_choices=3, max_items=5, seed=0)
        == []
    )


class Successor(nn.Module):
    """Stands for a model that expects every token to be followed by the next number."""

    config = SIZES

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(1, 1)

    def hidden(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot((tokens + 1) % 40, 40).float()

    def logits(self, hidden: Tensor) -> Tensor:
        return 5 * hidden


def test_a_model_that_knows_how_it_goes_on_chooses_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = [(torch.arange(start, start + 12) % 40) for start in range(0, 36, 5)]
    items = choice_items(counting, n_tokens=12, continuation_tokens=3, n_choices=4, max_items=8, seed=1)
    model = Successor()
    model.__class__ = type("S", (Successor, Transformer), {})  # the signature asks for a Transformer
    hits = choice_hits(model, items, continuation_tokens=3, context=24, batch_rows=3)
    assert hits == [True] * len(items)
    assert len(items) > 3


def test_recall_rows_hold_the_passage_twice_and_the_control_once() -> None:
    given = {"distance": 9, "passage_tokens": 5, "n_passages": 7, "seed": 2}
    found = recall_rows(documents(5, 30), **given)
    control = recall_rows(documents(5, 30), **given, is_control=True)
    assert found.shape == control.shape == (7, 1 + 5 + 9 + 5)
    assert (found[:, 0] == 1).all()
    assert torch.equal(found[:, 1:6], found[:, 15:])
    assert torch.equal(found[:, 6:], control[:, 6:]), "only the first place differs"
    assert not torch.equal(control[:, 1:6], control[:, 15:])


class Copier(Successor):
    """Goes on as the same two tokens went on the last time they were in sight."""

    def hidden(self, tokens: Tensor) -> Tensor:
        guess = torch.zeros_like(tokens)
        for b, row in enumerate(tokens.tolist()):
            for t in range(1, len(row)):
                for s in range(1, t):
                    if row[s - 1 : s + 1] == row[t - 1 : t + 1]:
                        guess[b, t] = row[s + 1]
        return nn.functional.one_hot(guess, 40).float()


def test_a_model_that_copies_recalls_within_its_context_only() -> None:
    model = Copier()
    model.__class__ = type("C", (Copier, Transformer), {})
    given = documents(40, 60)
    asked = {"n_asked": 4, "batch_rows": 8}
    made = recall_rows(given, distance=12, passage_tokens=8, n_passages=20, seed=0)
    assert recall_hits(model, made, context=64, **asked).float().mean() > 0.9
    assert recall_hits(model, made, context=12, **asked).float().mean() < 0.2
    control = recall_rows(given, distance=12, passage_tokens=8, n_passages=20, seed=0, is_control=True)
    assert recall_hits(model, control, context=64, **asked).float().mean() < 0.2
