"""What a request may ask for: stop strings, streams, alternatives, echo, cancellation, and honest refusals."""

import pytest
import torch

from puna.core.errors import ConfigError, ShapeError
from puna.inference.engine import Engine, TextTokenizer
from puna.inference.logprobs import token_logprobs
from puna.inference.request import Request
from puna.inference.sampling import SamplingConfig
from puna.model.accounting import kv_cache_bytes
from puna.model.blockwise_attention import BLOCK_TOKENS
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

GREEDY = SamplingConfig(temperature=0, max_new_tokens=20)
PROMPT = [1, 5, 9]


def greedy_text(model: Transformer, tokenizer: TextTokenizer) -> str:
    engine = Engine(model, tokenizer)
    [completion] = engine.generate([PROMPT], GREEDY, seeds=[0])
    return engine.text(completion)


def test_a_stop_string_ends_the_text_before_it_across_tokens(
    model: Transformer, tokenizer: TextTokenizer
) -> None:
    text = greedy_text(model, tokenizer)
    stop = text[5:8]  # digits and a comma of two tokens
    engine = Engine(model, tokenizer)
    sampling = GREEDY.model_copy(update={"stop": (stop,)})
    [completion] = engine.run([Request(prompt=PROMPT, sampling=sampling, seed=0)])
    assert completion.finish_reason == "stop"
    assert engine.text(completion) == text[: text.find(stop)].strip()
    assert stop in tokenizer.decode(completion.token_ids)
    assert stop not in tokenizer.decode(completion.token_ids[:-1])


def test_streamed_pieces_are_the_whole_answer(model: Transformer, tokenizer: TextTokenizer) -> None:
    engine = Engine(model, tokenizer)
    events = list(engine.stream(Request(prompt=PROMPT, sampling=GREEDY, seed=0, wants_stream=True)))
    last = events[-1].completion
    assert last is not None
    assert all(event.completion is None for event in events[:-1])
    assert [token for event in events for token in event.token_ids] == last.token_ids
    assert [value for event in events for value in event.logprobs] == last.logprobs
    assert "".join(event.text for event in events).strip() == greedy_text(model, tokenizer)


def test_leaving_a_stream_frees_its_slot_at_once(model: Transformer, tokenizer: TextTokenizer) -> None:
    engine = Engine(model, tokenizer, max_batch_size=1)
    stream = engine.stream(Request(prompt=PROMPT, sampling=GREEDY, seed=0, wants_stream=True))
    next(stream)
    waiting = engine.submit(Request(prompt=PROMPT, sampling=GREEDY, seed=0))
    engine.step()
    assert engine.n_running == 1
    stream.close()
    assert engine.n_running == 0
    engine.step()
    assert (engine.n_running, engine.n_live) == (1, 1)
    assert engine.cancel(waiting) is not None
    assert engine.cancel(waiting) is None


@pytest.mark.parametrize("n_steps", [0, 1, 5])
def test_a_cancelled_request_hands_back_what_it_has(
    model: Transformer, tokenizer: TextTokenizer, n_steps: int
) -> None:
    engine = Engine(model, tokenizer)
    [whole] = engine.generate([PROMPT], GREEDY, seeds=[0])
    request_id = engine.submit(Request(prompt=PROMPT, sampling=GREEDY, seed=0))
    for _ in range(n_steps):
        engine.step()
    cancelled = engine.cancel(request_id)
    assert cancelled is not None
    assert cancelled.finish_reason == "cancelled"
    assert cancelled.token_ids == whole.token_ids[:n_steps]
    assert engine.n_live == 0


def test_alternatives_are_the_likeliest_tokens(model: Transformer, tokenizer: TextTokenizer) -> None:
    request = Request(
        prompt=PROMPT, sampling=SamplingConfig(temperature=2, max_new_tokens=5), seed=1, n_top_logprobs=4
    )
    [completion] = Engine(model, tokenizer).run([request])
    row = torch.tensor([[*PROMPT, *completion.token_ids]])
    expected = model(row)[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    assert len(completion.top_logprobs) == len(completion.token_ids)
    for found, logprobs in zip(completion.top_logprobs, expected, strict=True):
        values, ids = logprobs.topk(4)
        assert [token for token, _ in found] == ids.tolist()
        assert [value for _, value in found] == pytest.approx(values.tolist(), abs=1e-4)


@pytest.mark.parametrize("n_prompt", [1, 2, 40])
def test_echo_reports_the_prompt_itself(model: Transformer, tokenizer: TextTokenizer, n_prompt: int) -> None:
    prompt = [1 + (5 * i) % 38 for i in range(n_prompt)]
    engine = Engine(model, tokenizer, max_step_tokens=16, max_batch_size=2)
    request = Request(prompt=prompt, sampling=GREEDY, seed=0, wants_echo=True)
    for completion in engine.run([request, request]):
        assert completion.prompt_logprobs == token_logprobs(model, torch.tensor([prompt]))[0].tolist()


def test_top_k_1_is_greedy(model: Transformer, tokenizer: TextTokenizer) -> None:
    engine = Engine(model, tokenizer)
    sampling = SamplingConfig(temperature=1, top_p=1, top_k=1, max_new_tokens=20)
    greedy = engine.generate([PROMPT] * 3, GREEDY, seeds=range(3))
    assert engine.generate([PROMPT] * 3, sampling, seeds=range(3)) == greedy


def test_a_high_repetition_penalty_never_says_a_thing_twice(
    model: Transformer, tokenizer: TextTokenizer
) -> None:
    sampling = GREEDY.model_copy(update={"repetition_penalty": 1e6})
    [completion] = Engine(model, tokenizer).generate([PROMPT], sampling, seeds=[0])
    assert len({*PROMPT, *completion.token_ids}) == len(PROMPT) + len(completion.token_ids)


def test_a_request_that_can_never_fit_is_refused_and_others_go_on(
    model: Transformer, tokenizer: TextTokenizer
) -> None:
    engine = Engine(model, tokenizer, cache_bytes=block_bytes(model) * 2)
    assert engine.run([Request(prompt=PROMPT, sampling=GREEDY, seed=0)])[0].token_ids
    with pytest.raises(ShapeError, match="expected 1 to 63 tokens"):
        engine.submit(Request(prompt=[1] * 64, sampling=GREEDY, seed=0))
    with pytest.raises(ConfigError, match="memory for at least two blocks"):
        Engine(model, tokenizer, cache_bytes=100).run([Request(prompt=PROMPT, sampling=GREEDY, seed=0)])


def test_a_text_longer_than_the_whole_cache_is_refused_by_name(tokenizer: TextTokenizer) -> None:
    config = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=40, hidden_dim=16, max_seq_len=512
    )
    model = Transformer(config)
    engine = Engine(model, tokenizer, cache_bytes=block_bytes(model) * 3)
    long = SamplingConfig(temperature=0, max_new_tokens=100)
    with pytest.raises(ShapeError, match="request 0: expected at most 128 tokens, prompt and response"):
        engine.submit(Request(prompt=[1] * 29, sampling=long, seed=0))
    with pytest.raises(ShapeError, match="at most 128 tokens"):
        engine.run([Request(prompt=[1] * n, sampling=long, seed=0) for n in (1, 29)])
    assert engine.n_live == 0
    assert len(engine.run([Request(prompt=[1] * 28, sampling=long, seed=0)])[0].token_ids) <= 100


def block_bytes(model: Transformer) -> int:
    return kv_cache_bytes(model.config, batch_size=1, seq_len=BLOCK_TOKENS, bytes_per_number=4)
