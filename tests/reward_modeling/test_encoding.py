"""Sides as tokens, and that a score is read at the last token whatever is padded behind it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.records import Side
from puna.inference import score_sequences
from puna.model import load_score_model
from puna.reward_modeling.encoding import EncodedPair, batch_pairs, encode_pairs, encode_response
from puna.tokenizer import Tokenizer
from ranked_pairs import comparison


def test_a_response_ends_with_eos_and_holds_what_the_chat_model_was_taught(world: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(world["model"])
    pair = comparison(0)
    ids = encode_response(pair.prompt, pair.chosen.response, tokenizer)
    assert ids[0] == tokenizer.bos_id
    assert ids[-1] == tokenizer.eos_id
    assert tokenizer.decode(ids[1:-1]).split("[/INST]")[1].strip() == "the hen is red."


def test_pairs_that_do_not_fit_are_dropped_whole(world: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(world["model"])
    long = comparison(1).model_copy(update={"rejected": Side(response="moo " * 60)})
    kept, n_dropped = encode_pairs([comparison(0), long], tokenizer, max_seq_len=80)
    assert [pair.comparison.id for pair in kept] == ["helpfulness-0"]
    assert n_dropped == 1


SIDES = st.lists(st.integers(0, 299), min_size=1, max_size=12)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6))
def test_every_side_is_whole_and_its_end_is_marked(sides: list[tuple[list[int], list[int]]]) -> None:
    """Token 0 occurs inside the sequences too: nothing is inferred from the padding's id."""
    pairs = [EncodedPair(comparison(i), chosen, rejected) for i, (chosen, rejected) in enumerate(sides)]
    batch = batch_pairs(pairs, margin="small")
    expected = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    assert batch.n_tokens == sum(map(len, expected))
    found = {}
    for row, column in batch.rows.target_mask.nonzero().tolist():
        first = column - int(batch.rows.positions[row, column])
        found[int(batch.rows.targets[row, column])] = batch.rows.tokens[row, first : column + 1].tolist()
    assert [found[number] for number in range(len(expected))] == expected


def test_labels_are_those_of_each_side() -> None:
    """The three bins, a pair without labels, and one with a label on one side only."""
    labels = ((True, False), (True, True), (False, False), (None, None), (None, True))
    pairs = []
    for number, (chosen, rejected) in enumerate(labels):
        sides = {
            "chosen": Side(response="a", is_safe=chosen),
            "rejected": Side(response="b", is_safe=rejected),
        }
        pairs.append(EncodedPair(comparison(number).model_copy(update=sides), [1], [2]))
    batch = batch_pairs(pairs, margin="none")
    assert batch.is_safe.tolist() == [True, True, False, False, False, False, True, False, False, True]
    assert batch.is_labelled.tolist() == [True, True, True, False, False, True, True, True, False, True]


def test_batched_scores_are_those_of_each_sequence_alone(world: dict[str, Path]) -> None:
    tokenizer, model = Tokenizer.load(world["safety"]), load_score_model(world["safety"], device="cpu").eval()
    pairs, _ = encode_pairs([comparison(i) for i in range(5)], tokenizer)
    with torch.no_grad():
        together = batch_pairs(pairs, margin="small").scores(model)
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    alone = [score_sequences(model, [side])[0] for side in sides]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
