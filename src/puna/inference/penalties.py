"""Repetition and presence penalties: what a response has said already becomes less likely."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from puna.inference.sampling import SamplingConfig

__all__ = ["penalize"]


def penalize(
    logits: Float[Tensor, "batch vocab"],
    prompts: Sequence[NDArray[np.int64]],
    responses: Sequence[NDArray[np.int64]],
    config: SamplingConfig,
) -> Float[Tensor, "batch vocab"]:
    """A copy of the logits with the penalties of the tokens in each row's prompt and response.

    Source: Keskar et al. 2019 (repetition, over prompt and response); presence, over the response, as servers do.
    """
    penalized = logits.clone()
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if config.repetition_penalty != 1:
            seen = torch.from_numpy(np.unique(np.concatenate((prompt, response)))).to(logits.device)
            values = penalized[row, seen]
            lowered = torch.where(
                values > 0, values / config.repetition_penalty, values * config.repetition_penalty
            )
            penalized[row, seen] = lowered
        if config.presence_penalty and len(response):
            penalized[row, torch.from_numpy(np.unique(response)).to(logits.device)] -= config.presence_penalty
    return penalized
