"""One token for every sequence that is due: settings, penalties and noise of its own, whatever is drawn beside it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from puna.inference.logprobs import gather_logprobs
from puna.inference.penalties import penalize
from puna.inference.sampling import SamplingConfig, sample_tokens
from puna.inference.sequence import Sequence as Running
from puna.inference.slots import SlotTable
from puna.model.blockwise_attention import ROW_MULTIPLE

__all__ = ["draw", "rows_drawn"]

MAX_DRAWN_LOGITS = 2**22
"""Logits held at once while tokens are drawn on a CPU: 16 MB in float32. Our choice, by measurement."""


def rows_drawn(device: torch.device, *, vocab_size: int, max_batch_size: int) -> int:
    """Sequences whose logits are held at once: on a CPU as many as stay in its cache."""
    if device.type != "cpu":
        return max_batch_size
    return max(1, MAX_DRAWN_LOGITS // vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE


def draw(
    drawn: Sequence[Running],
    hidden: Float[Tensor, "sequence dim"],
    slots: SlotTable,
    *,
    logits_of: Callable[[Tensor], Tensor],
    n_rows: int,
) -> NDArray[np.int64]:
    """Sample a token for each of these running sequences and write it into its slot.

    Args:
        hidden: The state of each one's last token.
        logits_of: The model's output layer.
        n_rows: Sequences whose logits are held at once; the tokens are the same for any.
    Returns:
        The tokens, one a sequence.
    """
    at = np.array([sequence.slot for sequence in drawn])
    noise = torch.from_numpy(slots.next_noise(at)).to(hidden.device)
    chosen, logprobs = [], []
    for start in range(0, len(drawn), n_rows):
        rows = slice(start, start + n_rows)
        logits = logits_of(hidden[rows])
        chosen.append(_choose(drawn[rows], logits, noise[rows], slots))
        logprobs.append(gather_logprobs(logits, chosen[-1]))
        _note_alternatives(drawn[rows], logits)
    tokens: NDArray[np.int64] = torch.cat(chosen).cpu().numpy()
    slots.append(drawn, tokens, torch.cat(logprobs).cpu().numpy())
    return tokens


def _choose(
    drawn: Sequence[Running],
    logits: Float[Tensor, "sequence vocab"],
    noise: Float[Tensor, " sequence"],
    slots: SlotTable,
) -> Int[Tensor, " sequence"]:
    """One token a row; rows with the same settings are drawn together."""
    chosen = torch.empty(len(drawn), dtype=torch.long, device=logits.device)
    for config, members in _by_settings(drawn).items():
        rows = torch.tensor(members, device=logits.device)
        part = logits if len(members) == len(drawn) else logits[rows]
        if config.has_penalties:
            part = _penalized([drawn[index] for index in members], part, config, slots)
        chosen[rows] = sample_tokens(part, noise[rows], config)
    return chosen


def _by_settings(drawn: Sequence[Running]) -> dict[SamplingConfig, list[int]]:
    """Indices of the sequences by their settings."""
    first = drawn[0].request.sampling
    if all(sequence.request.sampling is first for sequence in drawn):
        return {first: list(range(len(drawn)))}
    groups: dict[SamplingConfig, list[int]] = {}
    for index, sequence in enumerate(drawn):
        groups.setdefault(sequence.request.sampling, []).append(index)
    return groups


def _penalized(
    drawn: Sequence[Running], logits: Tensor, config: SamplingConfig, slots: SlotTable
) -> Float[Tensor, "sequence vocab"]:
    rows = [np.split(slots.tokens[s.slot, : slots.n_tokens[s.slot]], [s.n_prompt]) for s in drawn]
    return penalize(logits, [row[0] for row in rows], [row[1] for row in rows], config)


def _note_alternatives(drawn: Sequence[Running], logits: Float[Tensor, "sequence vocab"]) -> None:
    """The likeliest tokens, for those who asked."""
    for index, sequence in enumerate(drawn):
        if sequence.request.n_top_logprobs:
            n_top = min(sequence.request.n_top_logprobs, logits.shape[1])
            values, ids = logits[index].log_softmax(-1).topk(n_top)
            sequence.top_logprobs.append(list(zip(ids.tolist(), values.tolist(), strict=True)))
