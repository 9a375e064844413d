"""Scores of whole sequences by a reward model (§3.2.2): the scalar at the last token."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from puna.core.errors import ShapeError
from puna.model.heads import ScoreModel
from puna.model.kv_cache import KVCache

__all__ = ["score_sequences"]

MIN_SHARED = 16
"""Neighbours that begin with at least this many equal tokens, as the answers to one prompt do, share their reading."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Neighbouring sequences and how many first tokens they have in common; none, for one alone."""

    members: range
    n_shared: int


@torch.inference_mode()
def score_sequences(
    score_model: ScoreModel, sequences: Sequence[Sequence[int]], *, max_batch_size: int = 128
) -> list[float]:
    """The score of each sequence, in logits, in the order given.

    Sequences of like length are scored together. What neighbours have in common is read once: of the K answers to
    one prompt that a rejection sampler scores, the prompt. A score depends on its neighbours in its last bits only.

    Raises:
        ShapeError: a sequence is empty or longer than the context.
    """
    context = score_model.trunk.config.max_seq_len
    for index, sequence in enumerate(sequences):
        if not 0 < len(sequence) <= context:
            raise ShapeError(
                where=f"sequence {index} to score",
                expected=f"1 to {context} tokens (the model's context)",
                got=f"{len(sequence)}",
                fix="Shorten the dialog.",
            )
    scores = [0.0] * len(sequences)
    families = sorted(
        _families(sequences, max_batch_size), key=lambda f: (f.n_shared, _longest(f, sequences))
    )
    for batch in _batches(families, max_batch_size):
        rows = [index for family in batch for index in family.members]
        values = _score(score_model, [sequences[index] for index in rows], batch)
        for index, value in zip(rows, values, strict=True):
            scores[index] = value
    return scores


def _families(sequences: Sequence[Sequence[int]], max_size: int) -> list[_Family]:
    """Runs of neighbours that share a beginning; at least their last tokens stay out of it."""
    families: list[_Family] = []
    for index, sequence in enumerate(sequences):
        if families and len(families[-1].members) < max_size:
            members, n_shared = families[-1].members, families[-1].n_shared
            limit = n_shared or len(sequences[members[0]]) - 1
            common = _n_common(sequences[members[0]], sequence, min(limit, len(sequence) - 1))
            if common >= max(MIN_SHARED, n_shared):
                families[-1] = _Family(range(members[0], index + 1), common)
                continue
        families.append(_Family(range(index, index + 1), 0))
    return families


def _n_common(one: Sequence[int], two: Sequence[int], limit: int) -> int:
    pairs = itertools.islice(zip(one, two, strict=False), limit)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _longest(family: _Family, sequences: Sequence[Sequence[int]]) -> int:
    return max(len(sequences[index]) for index in family.members)


def _batches(families: Sequence[_Family], max_size: int) -> list[list[_Family]]:
    """Families in order, as many as fit; those that share nothing stay by themselves."""
    batches: list[list[_Family]] = []
    for family in families:
        fits = batches and sum(len(f.members) for f in batches[-1]) + len(family.members) <= max_size
        if fits and (batches[-1][0].n_shared > 0) == (family.n_shared > 0):
            batches[-1].append(family)
        else:
            batches.append([family])
    return batches


def _score(
    score_model: ScoreModel, sequences: Sequence[Sequence[int]], families: Sequence[_Family]
) -> list[float]:
    device = score_model.score.weight.device
    n_shared = [family.n_shared for family in families for _ in family.members]
    ends = torch.tensor([len(s) - n - 1 for s, n in zip(sequences, n_shared, strict=True)], device=device)
    own = [torch.tensor(s[n:]) for s, n in zip(sequences, n_shared, strict=True)]
    tokens = pad_sequence(own, batch_first=True).to(device)  # on the right, where causality makes it harmless
    cache = _read_shared(score_model, sequences, families, n_new=tokens.shape[1]) if n_shared[0] else None
    return score_model(tokens, cache=cache).gather(1, ends[:, None]).squeeze(1).tolist()


def _read_shared(
    score_model: ScoreModel, sequences: Sequence[Sequence[int]], families: Sequence[_Family], *, n_new: int
) -> KVCache:
    """Keys and values of what each family shares, a row for each of its members."""
    firsts = [0, *itertools.accumulate(len(family.members) for family in families)][:-1]
    shared = [sequences[first][: family.n_shared] for first, family in zip(firsts, families, strict=True)]
    width = max(map(len, shared))
    device = score_model.score.weight.device
    padding = torch.tensor([width - len(row) for row in shared], device=device)
    cache = KVCache(
        score_model.trunk.config,
        batch_size=len(shared),
        max_len=width + n_new,
        n_padding=padding,
        dtype=score_model.score.weight.dtype,
        device=device,
    )
    rows = [torch.tensor([0] * (width - len(row)) + list(row)) for row in shared]
    score_model.trunk.hidden(torch.stack(rows).to(device), cache=cache)
    members: Int[Tensor, " row"] = torch.repeat_interleave(
        torch.arange(len(families)), torch.tensor([len(family.members) for family in families])
    )
    return cache.select(members.to(device))
