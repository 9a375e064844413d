"""The next-token loss of pretraining and fine-tuning (§2.2, §3.1)."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from puna.training.linear_cross_entropy import IGNORED, linear_cross_entropy
from puna.training.parallel.vocab_parallel import vocab_parallel_loss

__all__ = ["HasOutputWeight", "next_token_loss"]


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
