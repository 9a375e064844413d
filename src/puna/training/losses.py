"""The losses of the recipe: next token (§2.2, §3.1), ranking with margin (Eq. 2), safety auxiliary (§3.2.2)."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from puna.training.linear_cross_entropy import IGNORED, linear_cross_entropy
from puna.training.parallel.vocab_parallel import vocab_parallel_loss

__all__ = ["HasOutputWeight", "next_token_loss", "ranking_loss", "safety_auxiliary_loss"]


@runtime_checkable
class HasOutputWeight(Protocol):
    """A language model whose vocabulary projection can be applied to chosen positions only."""

    @property
    def output_weight(self) -> Tensor:
        """The matrix, (vocab, dim), that makes logits of hidden states."""
        ...


ROWS_MULTIPLE = 256
"""Trained positions are filled up to a multiple of this with rows that count for nothing: oneDNN compiles and keeps
a kernel for every matrix size it meets, and their number would differ at every step."""


def next_token_loss(
    model: HasOutputWeight,
    hidden: Float[Tensor, "*batch dim"],
    targets: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None,
) -> tuple[Float[Tensor, ""], int]:
    """Sum of -log p(target) over the masked positions; logits are made nowhere else, nor all at once.

    Source: Llama 2 §3.1 (loss zeroed on prompt tokens); the mask is where it is zeroed.

    Args:
        targets: The token that follows each position (already shifted).
        mask: True where the position is trained; None trains all of them.
    Returns:
        Nats summed over the trained positions in float32, and how many there are.
    """
    flat_hidden, flat_targets = hidden.flatten(0, -2), targets.flatten()
    n_targets = flat_targets.numel()
    if mask is not None:
        chosen = mask.flatten().nonzero().squeeze(1)
        n_targets = chosen.numel()
        n_filler = min(-chosen.numel() % ROWS_MULTIPLE, mask.numel() - chosen.numel())
        flat_targets = F.pad(flat_targets[chosen], (0, n_filler), value=IGNORED)
        flat_hidden = flat_hidden.index_select(0, F.pad(chosen, (0, n_filler)))
    weight = model.output_weight
    if isinstance(weight, DTensor):
        return vocab_parallel_loss(flat_hidden, weight, flat_targets), n_targets
    return linear_cross_entropy(flat_hidden, weight, flat_targets), n_targets


def ranking_loss(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], *, margin: Float[Tensor, " pair"]
) -> Float[Tensor, ""]:
    """Mean pairwise ranking loss with a margin set by the annotator's rating.

    Source: Llama 2 §3.2.2, Eq. 2: -log sigmoid(r(x, y_c) - r(x, y_r) - m(r)). Zero margins give Eq. 1.

    Args:
        chosen: Scalar-head output for the preferred response, in logits.
        margin: m(r) >= 0, in logits; Table 27 holds the two scales.
    Returns:
        Nats per pair, mean over pairs, float32 whatever the input dtype.
    """
    return -F.logsigmoid(chosen.float() - rejected.float() - margin.float()).mean()


def safety_auxiliary_loss(
    scores: Float[Tensor, " response"], is_safe: Bool[Tensor, " response"]
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of a response's score against its safety label.

    Source: Llama 2 §3.2.2 and Table 29 report such a term and its effect but print no formula: this form is
    our choice. A score is a logit of "safe", so that 0 is the paper's threshold of 0.5.

    Returns:
        Nats per response, mean over responses, float32 whatever the input dtype.
    """
    return F.binary_cross_entropy_with_logits(scores.float(), is_safe.to(torch.float32))
