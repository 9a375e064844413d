"""What a reward model learns from: ranking with a margin (§3.2.2, Eq. 2) and the safety auxiliary loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ranking_loss", "safety_auxiliary_loss"]


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
