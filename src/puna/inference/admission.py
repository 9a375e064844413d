"""What is refused before it costs anything: prompts without room for an answer, and texts the cache can never hold."""

from collections.abc import Sequence

from puna.core.errors import ShapeError
from puna.inference.request import Request
from puna.model.blockwise_attention import BLOCK_TOKENS
from puna.model.config import ModelConfig

__all__ = ["check_batch", "check_prompt", "length_limit"]


def check_batch(config: ModelConfig, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
    """Refuse a batch as a whole.

    Raises:
        ShapeError: a prompt is empty or leaves no room in the context, or the seeds do not match the prompts.
    """
    if len(seeds) != len(prompts):
        raise ShapeError(
            where="generate",
            expected=f"{len(prompts)} seeds",
            got=f"{len(seeds)}",
            fix="Give one a prompt.",
        )
    for index, prompt in enumerate(prompts):
        check_prompt(config, prompt, where=f"prompt {index}")


def check_prompt(config: ModelConfig, prompt: Sequence[int], *, where: str) -> None:
    """Refuse a prompt that is empty or leaves no room in the context.

    Raises:
        ShapeError: says how many tokens there may be.
    """
    context = config.max_seq_len
    if not 0 < len(prompt) < context:
        raise ShapeError(
            where=where,
            expected=f"1 to {context - 1} tokens, so that the context of {context} has room for an answer",
            got=f"{len(prompt)}",
            fix="Shorten the prompt.",
        )


def length_limit(config: ModelConfig, request: Request, *, n_usable_blocks: int, where: str) -> int:
    """Tokens at which the request ends by length, prompt and response together.

    Raises:
        ShapeError: the cache can never hold so many.
    """
    n_limit = min(len(request.prompt) + request.sampling.max_new_tokens, config.max_seq_len)
    if n_limit > n_usable_blocks * BLOCK_TOKENS:
        raise ShapeError(
            where=where,
            expected=f"at most {n_usable_blocks * BLOCK_TOKENS:,} tokens, prompt and response: the cache's",
            got=f"{n_limit:,}",
            fix="Lower max_new_tokens, shorten the prompt, or give the engine's cache more memory.",
        )
    return n_limit
