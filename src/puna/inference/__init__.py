"""Sampling from a model and measuring given text: the engine, log-probabilities and scores."""

from puna.inference.engine import Engine
from puna.inference.finish import is_finished
from puna.inference.logprobs import gather_logprobs, right_padded_hidden, token_logprobs
from puna.inference.request import Completion, Request, TokenEvent
from puna.inference.sampling import SamplingConfig
from puna.inference.score import score_sequences

__all__ = [
    "Completion",
    "Engine",
    "Request",
    "SamplingConfig",
    "TokenEvent",
    "gather_logprobs",
    "is_finished",
    "right_padded_hidden",
    "score_sequences",
    "token_logprobs",
]
