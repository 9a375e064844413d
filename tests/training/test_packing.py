"""Packing keeps every token, in order, in one row, and lets no example see another."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import ShapeError
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.training.packing import PackedRows, TokenizedExample, pack

SEQ_LEN = 12

Pairs = list[list[tuple[int, bool]]]
examples_strategy = st.lists(
    st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=2, max_size=SEQ_LEN + 1), max_size=25
)


def examples_of(drawn: Pairs) -> list[TokenizedExample]:
    return [TokenizedExample([t for t, _ in pairs], [m for _, m in pairs]) for pairs in drawn]


def unpack(rows: PackedRows) -> list[tuple[list[int], list[bool]]]:
    """The examples of packed rows: their tokens, and the mask of all but the first."""
    found = []
    for row in range(len(rows)):
        for document in range(int(rows.document_ids[row].max()) + 1):
            here = rows.document_ids[row] == document
            tokens = rows.tokens[row][here].tolist()
            assert rows.positions[row][here].tolist() == list(range(len(tokens)))
            assert rows.targets[row][here].tolist()[:-1] == tokens[1:]
            tokens.append(int(rows.targets[row][here][-1]))
            found.append((tokens, rows.target_mask[row][here].tolist()))
    return found


@given(examples_strategy)
def test_every_example_comes_back_whole(drawn: Pairs) -> None:
    rows = pack(examples_of(drawn), seq_len=SEQ_LEN)
    expected = [(list(e.token_ids), list(e.loss_mask[1:])) for e in examples_of(drawn)]
    assert sorted(unpack(rows)) == sorted(expected)
    assert rows.tokens.shape == rows.document_ids.shape == (len(rows), SEQ_LEN)


@given(examples_strategy)
def test_documents_are_contiguous_and_padding_is_never_learned(drawn: Pairs) -> None:
    rows = pack(examples_of(drawn), seq_len=SEQ_LEN)
    steps = rows.document_ids.diff(dim=1)
    is_padding = rows.document_ids == -1
    assert ((steps == 0) | (steps == 1) | is_padding[:, 1:]).all()
    assert not (rows.target_mask & is_padding).any()
    assert (is_padding.long().diff(dim=1) >= 0).all(), "padding comes last"


@given(examples_strategy)
def test_no_two_rows_could_be_one(drawn: Pairs) -> None:
    used = sorted((pack(examples_of(drawn), seq_len=SEQ_LEN).document_ids != -1).sum(dim=1).tolist())
    if len(used) > 1:
        assert used[0] + used[1] > SEQ_LEN


def test_packing_is_deterministic() -> None:
    random.seed(0)
    examples = [TokenizedExample([i] * random.randint(2, 12), [True] * 12) for i in range(50)]
    examples = [TokenizedExample(e.token_ids, e.loss_mask[: len(e.token_ids)]) for e in examples]
    first, second = pack(examples, seq_len=SEQ_LEN), pack(examples, seq_len=SEQ_LEN)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.document_ids, second.document_ids)


def test_dialog_like_lengths_waste_under_five_percent() -> None:
    draw = random.Random(0)
    lengths = [min(512, 8 + int(draw.lognormvariate(4, 0.8))) for _ in range(2000)]
    examples = [TokenizedExample([1] * n, [True] * n) for n in lengths]
    assert pack(examples, seq_len=512).padding_fraction < 0.05


def test_an_example_too_long_is_an_error_or_cut_as_asked() -> None:
    example = TokenizedExample(list(range(20)), [True] * 20)
    with pytest.raises(ShapeError, match="at most 13 tokens, got 20"):
        pack([example], seq_len=SEQ_LEN)
    rows = pack([example], seq_len=SEQ_LEN, overlong="truncate")
    assert rows.tokens.tolist() == [list(range(12))]
    assert rows.targets.tolist() == [list(range(1, 13))]


@pytest.mark.parametrize("example", [TokenizedExample([1], [True]), TokenizedExample([1, 2], [True])])
def test_an_example_without_targets_or_with_a_short_mask_is_an_error(example: TokenizedExample) -> None:
    with pytest.raises(ShapeError, match="example 0"):
        pack([example], seq_len=SEQ_LEN)


def test_packed_examples_predict_as_if_alone() -> None:
    model = Transformer(
        ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=32, hidden_dim=32, max_seq_len=32)
    )
    draw = random.Random(1)
    texts = [[draw.randrange(32) for _ in range(n)] for n in (9, 4, 6, 2)]
    rows = pack([TokenizedExample(t, [True] * len(t)) for t in texts], seq_len=24)
    assert len(rows) == 1
    packed = model.hidden(rows.tokens, positions=rows.positions, document_ids=rows.document_ids)
    by_length = sorted(texts, key=len, reverse=True)
    for document, text in enumerate(by_length):
        alone = model.hidden(torch.tensor([text[:-1]]))
        torch.testing.assert_close(packed[rows.document_ids == document], alone[0], atol=1e-5, rtol=1e-5)


@given(examples_strategy, st.integers(1, 9))
def test_rows_rounded_up_gain_padding_only(drawn: Pairs, multiple: int) -> None:
    rows = pack(examples_of(drawn), seq_len=SEQ_LEN)
    more = rows.rounded_up(multiple)
    assert len(more) % multiple == 0
    assert 0 <= len(more) - len(rows) < multiple
    assert unpack(more.select(range(len(rows)))) == unpack(rows)
    assert (more.document_ids[len(rows) :] == -1).all()
    assert not more.target_mask[len(rows) :].any()
