"""Prompts as token ids, once, for every iteration that samples from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from puna.core.errors import DataError
from puna.core.records import Prompt, read_records
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["EncodedPrompt", "is_safety", "longest", "read_prompts"]


class EncodedPrompt(NamedTuple):
    """A prompt and the tokens that the model is given."""

    prompt: Prompt
    token_ids: list[int]


def read_prompts(path: Path, tokenizer: Tokenizer, *, max_tokens: int) -> tuple[list[EncodedPrompt], int]:
    """The file's prompts that leave room for a response, and how many did not.

    Args:
        max_tokens: The context less the longest response.
    Raises:
        DataError: no prompt is left.
    """
    encoded = [EncodedPrompt(p, render_prompt(p.messages, tokenizer)) for p in read_records(path, Prompt)]
    kept = [item for item in encoded if len(item.token_ids) <= max_tokens]
    if not kept:
        raise DataError(
            where=str(path),
            expected=f"at least one prompt of at most {max_tokens} tokens",
            got=f"{len(encoded)} prompts, all longer" if encoded else "no prompts",
            fix="Give other prompts, a model with a longer context, or a smaller max_new_tokens.",
        )
    return kept, len(encoded) - len(kept)


def is_safety(prompts: Sequence[EncodedPrompt]) -> Bool[Tensor, " batch"]:
    """The paper's is_safety(p): the prompt is tagged as likely to draw an unsafe answer."""
    return torch.tensor([item.prompt.is_safety for item in prompts])


def longest(prompts: Sequence[EncodedPrompt]) -> int:
    """Tokens of the longest prompt."""
    return max(len(item.token_ids) for item in prompts)
