"""What the engine is asked for and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from puna.core.records import FinishReason
from puna.inference.sampling import SamplingConfig

__all__ = ["Completion", "Request", "TokenEvent", "TopLogprobs"]

TopLogprobs = list[tuple[int, float]]
"""The likeliest tokens with their log-probabilities in nats, likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One response to draw. Its tokens and log-probs are a function of this and of the weights."""

    prompt: Sequence[int]
    sampling: SamplingConfig
    seed: int
    """Of this sample's own randomness."""
    n_top_logprobs: int = 0
    """Likeliest alternatives to report for each sampled token."""
    wants_echo: bool = False
    """Also report the prompt's own log-probs; its state is then computed anew, not shared."""
    wants_stream: bool = False
    """Report each token when it is drawn."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    token_ids: list[int]
    """Sampled tokens; the last is end-of-sequence if that was sampled."""
    logprobs: list[float]
    """Nats, under the model's own distribution: before temperature, penalties, top-k and top-p."""
    finish_reason: FinishReason
    text: str | None = None
    """Set where a stop string ended the response: the text before it."""
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    """One list a sampled token, if asked for."""
    prompt_logprobs: list[float] = field(default_factory=list)
    """log p of each prompt token but the first, if echo was asked for."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token of a streamed request; the last event carries the completion."""

    request_id: int
    token_ids: list[int]
    logprobs: list[float]
    text: str
    """Text that is now certain: never a part of a stop string or of an unfinished character."""
    completion: Completion | None = None
