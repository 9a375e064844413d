"""The four ways a response ends, each through the engine, and which of them count as finished."""

import typing

import pytest

from puna.core.records import FinishReason
from puna.inference.engine import Engine, TextTokenizer
from puna.inference.finish import is_finished
from puna.inference.request import Completion, Request
from puna.inference.sampling import SamplingConfig
from puna.model.transformer import Transformer

PROMPT = [1, 5, 9]
LONG = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=60)


def respond(model: Transformer, tokenizer: TextTokenizer, sampling: SamplingConfig, seed: int) -> Completion:
    return Engine(model, tokenizer).generate([PROMPT], sampling, seeds=[seed])[0]


@pytest.fixture(scope="module")
def with_eos(model: Transformer, tokenizer: TextTokenizer) -> tuple[int, Completion]:
    """A seed whose response ends by itself after some tokens."""
    drawn = ((seed, respond(model, tokenizer, LONG, seed)) for seed in range(100))
    return next((s, c) for s, c in drawn if c.finish_reason == "eos" and len(c.token_ids) > 5)


def test_an_end_of_sequence_token_finishes(with_eos: tuple[int, Completion]) -> None:
    _, completion = with_eos
    assert completion.token_ids[-1] == 2
    assert is_finished(completion.finish_reason)


def test_a_stop_string_finishes(
    model: Transformer, tokenizer: TextTokenizer, with_eos: tuple[int, Completion]
) -> None:
    seed, whole = with_eos
    stop = tokenizer.decode(whole.token_ids[2:4])
    completion = respond(model, tokenizer, LONG.model_copy(update={"stop": (stop,)}), seed)
    assert completion.finish_reason == "stop"
    assert completion.token_ids == whole.token_ids[: len(completion.token_ids)]
    assert is_finished(completion.finish_reason)


def test_a_limit_of_tokens_cuts(
    model: Transformer, tokenizer: TextTokenizer, with_eos: tuple[int, Completion]
) -> None:
    seed, whole = with_eos
    completion = respond(model, tokenizer, LONG.model_copy(update={"max_new_tokens": 4}), seed)
    assert completion.token_ids == whole.token_ids[:4]
    assert not is_finished(completion.finish_reason)


def test_a_response_whose_last_allowed_token_is_its_end_is_finished(
    model: Transformer, tokenizer: TextTokenizer, with_eos: tuple[int, Completion]
) -> None:
    seed, whole = with_eos
    just_enough = LONG.model_copy(update={"max_new_tokens": len(whole.token_ids)})
    assert is_finished(respond(model, tokenizer, just_enough, seed).finish_reason)


def test_a_cancellation_cuts(
    model: Transformer, tokenizer: TextTokenizer, with_eos: tuple[int, Completion]
) -> None:
    seed, whole = with_eos
    engine = Engine(model, tokenizer)
    request_id = engine.submit(Request(prompt=PROMPT, sampling=LONG, seed=seed))
    for _ in range(3):
        engine.step()
    completion = engine.cancel(request_id)
    assert completion is not None
    assert completion.token_ids == whole.token_ids[:3]
    assert not is_finished(completion.finish_reason)


def test_every_reason_has_a_verdict() -> None:
    verdicts = {reason: is_finished(reason) for reason in typing.get_args(FinishReason)}
    assert verdicts == {"eos": True, "stop": True, "length": False, "cancelled": False}
