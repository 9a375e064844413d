"""The engine's promise: a request's tokens and log-probs are its own, whatever happens around it."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.inference.engine import Engine, TextTokenizer
from puna.inference.logprobs import token_logprobs
from puna.inference.request import Completion, Request
from puna.inference.sampling import SamplingConfig
from puna.model.accounting import kv_cache_bytes
from puna.model.blockwise_attention import BLOCK_TOKENS
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

CONTEXT = 320

SETTINGS = [
    SamplingConfig(temperature=0, max_new_tokens=9),
    SamplingConfig(temperature=1, top_p=1, max_new_tokens=70),
    SamplingConfig(temperature=0.8, top_p=0.9, top_k=12, repetition_penalty=1.2, max_new_tokens=12),
]


def build(heads: tuple[int, int], *, seed: int) -> Transformer:
    config = ModelConfig(
        dim=64,
        n_layers=2,
        n_heads=heads[0],
        n_kv_heads=heads[1],
        vocab_size=57,
        hidden_dim=76,
        max_seq_len=CONTEXT,
    )
    return Transformer(config, seed=seed).requires_grad_(False)


@pytest.fixture(scope="module", params=[(4, 2), (6, 2), (2, 2)], ids=["gqa2", "gqa3", "mha"])
def wide_model(request: pytest.FixtureRequest) -> Transformer:
    heads = request.param
    if heads == (6, 2):
        config = ModelConfig(
            dim=96, n_layers=2, n_heads=6, n_kv_heads=2, vocab_size=57, hidden_dim=76, max_seq_len=CONTEXT
        )
        return Transformer(config, seed=5).requires_grad_(False)
    return build(heads, seed=5)


def cache_of(model: Transformer, n_blocks: int) -> int:
    width = model.tok_embeddings.weight.dtype.itemsize
    return n_blocks * kv_cache_bytes(model.config, batch_size=1, seq_len=BLOCK_TOKENS, bytes_per_number=width)


def alone(model: Transformer, tokenizer: TextTokenizer, request: Request) -> Completion:
    return Engine(model, tokenizer, max_batch_size=1).run([request])[0]


def prompt_of(length: int, family: int) -> list[int]:
    """Prompts of one family begin alike."""
    shared = [(3 + family * 7 + 5 * i) % 57 for i in range(length)]
    return [token if token != 2 else 3 for token in shared]


ASKED = st.lists(
    st.fixed_dictionaries(
        {
            "length": st.sampled_from([1, 2, 15, 16, 63, 64, 65, 100, 128, 129, 200]),
            "family": st.integers(0, 2),
            "sampling": st.sampled_from(SETTINGS),
            "seed": st.integers(0, 5),
            "n_top_logprobs": st.sampled_from([0, 0, 3]),
            "wants_echo": st.sampled_from([False, False, True]),
        }
    ),
    min_size=1,
    max_size=7,
)
"""Requests as plain values: the shape checks of the tests draw at random, which strategies must not."""


@settings(max_examples=8)
@given(ASKED, st.integers(1, 5), st.sampled_from([5, 40, 2048]), st.sampled_from([7, 9, 30]), st.data())
def test_a_request_is_the_same_alone_and_in_any_crowd(
    wide_model: Transformer,
    tokenizer: TextTokenizer,
    asked_for: list[dict[str, Any]],
    max_batch_size: int,
    max_step_tokens: int,
    n_blocks: int,
    data: st.DataObject,
) -> None:
    """Any batch, arrival order, chunks of prompts, cache hits, and pools so small that sequences give way."""
    asked = [
        Request(prompt=prompt_of(wanted.pop("length"), wanted.pop("family")), **wanted)
        for wanted in map(dict, asked_for)
    ]
    engine = Engine(
        wide_model,
        tokenizer,
        max_batch_size=max_batch_size,
        max_step_tokens=max_step_tokens,
        cache_bytes=cache_of(wide_model, n_blocks),
    )
    index_of: dict[int, int] = {}
    found: dict[int, Completion] = {}
    left = list(range(len(asked)))
    while left or engine.n_live:
        for _ in range(data.draw(st.integers(0, 2)) if engine.n_live else 1):
            if left:
                index = left.pop(data.draw(st.integers(0, len(left) - 1)))
                index_of[engine.submit(asked[index])] = index
        for event in engine.step():
            if event.completion is not None:
                found[index_of[event.request_id]] = event.completion
    for index, request in enumerate(asked):
        assert found[index] == alone(wide_model, tokenizer, request)


def test_sequences_that_gave_way_are_computed_anew_to_the_same_bits(
    wide_model: Transformer, tokenizer: TextTokenizer
) -> None:
    asked = [
        Request(prompt=prompt_of(61 + i // 3, i), sampling=SETTINGS[1], seed=i, n_top_logprobs=2)
        for i in range(6)
    ]
    engine = Engine(wide_model, tokenizer, max_batch_size=6, cache_bytes=cache_of(wide_model, 7))
    found = engine.run(asked)
    assert engine.n_preemptions > 0
    assert found == [alone(wide_model, tokenizer, request) for request in asked]


def test_samples_of_one_prompt_compute_it_once_and_stay_themselves(
    wide_model: Transformer, tokenizer: TextTokenizer
) -> None:
    asked = [Request(prompt=prompt_of(150, 0), sampling=SETTINGS[1], seed=i) for i in range(8)]
    engine = Engine(wide_model, tokenizer)
    found = engine.run(asked)
    n_sampled = sum(len(completion.token_ids) for completion in found)
    assert engine.n_computed_tokens <= 150 + 7 + n_sampled
    assert found == [alone(wide_model, tokenizer, request) for request in asked]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_trainer_finds_the_sampler_s_log_probs_to_the_last_bit(
    wide_model: Transformer, tokenizer: TextTokenizer, n_threads: int
) -> None:
    """Rows of every length, padded together, with gradients and without, at any number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        asked = [
            Request(prompt=prompt_of(n, n), sampling=SETTINGS[1], seed=n, wants_echo=n % 2 == 0)
            for n in (1, 3, 30, 64, 65, 100, 131)
        ]
        found = Engine(wide_model, tokenizer).run(asked)
        rows = [[*request.prompt, *c.token_ids] for request, c in zip(asked, found, strict=True)]
        longest = max(map(len, rows))
        batch = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        together = token_logprobs(wide_model, batch)
        trained = token_logprobs(wide_model.requires_grad_(True), batch)
        assert trained.requires_grad
        wide_model.requires_grad_(False)
        for index, (request, completion) in enumerate(zip(asked, found, strict=True)):
            n_prompt, n_all = len(request.prompt), len(rows[index])
            single = token_logprobs(wide_model, torch.tensor(rows[index])[None])[0]
            for values in (together[index], trained[index].detach(), single):
                assert values[n_prompt - 1 : n_all - 1].tolist() == completion.logprobs
                if request.wants_echo:
                    assert values[: n_prompt - 1].tolist() == completion.prompt_logprobs
    finally:
        wide_model.requires_grad_(False)
        torch.set_num_threads(before)


def bf16(model: Transformer) -> Transformer:
    copied = Transformer(model.config).to(torch.bfloat16).requires_grad_(False)
    copied.load_state_dict(model.state_dict())
    return copied


@pytest.mark.parametrize("n_blocks", [7, 60])
def test_bfloat16_keeps_the_promise_too(
    wide_model: Transformer, tokenizer: TextTokenizer, n_blocks: int
) -> None:
    model = bf16(wide_model)
    asked = [
        Request(prompt=prompt_of(n, n % 2), sampling=SETTINGS[i % 3], seed=i)
        for i, n in enumerate([1, 5, 40, 64, 64, 90, 129, 140])
    ]
    cache_bytes = cache_of(model, n_blocks)
    for order in (asked, asked[::-1]):
        found = Engine(model, tokenizer, max_batch_size=5, max_step_tokens=70, cache_bytes=cache_bytes).run(
            order
        )
        for request, completion in zip(order, found, strict=True):
            assert completion == alone(model, tokenizer, request)


def drift(completions: Sequence[Completion], rows: Sequence[Sequence[int]], model: Transformer) -> float:
    worst = 0.0
    for completion, row in zip(completions, rows, strict=True):
        trained = token_logprobs(model, torch.tensor(row)[None])[0, -len(completion.token_ids) :]
        worst = max(worst, float((trained - torch.tensor(completion.logprobs)).abs().max()))
    return worst


def test_bfloat16_sampler_and_trainer_differ_by_rounding_only(
    wide_model: Transformer, tokenizer: TextTokenizer
) -> None:
    """Less than 0.02 nats, with bfloat16 weights and under autocast (the way PPO runs)."""
    asked = [Request(prompt=prompt_of(n, 1), sampling=SETTINGS[1], seed=n) for n in (3, 70, 150)]
    low = bf16(wide_model)
    found = Engine(low, tokenizer).run(asked)
    rows = [[*request.prompt, *c.token_ids] for request, c in zip(asked, found, strict=True)]
    assert drift(found, rows, low) < 0.02
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Engine(wide_model, tokenizer).run(asked)
        rows = [[*request.prompt, *c.token_ids] for request, c in zip(asked, found, strict=True)]
        assert drift(found, rows, wide_model) < 0.02


def test_new_weights_count_from_the_refresh_on(tokenizer: TextTokenizer) -> None:
    model, other = build((4, 2), seed=1), build((4, 2), seed=2)
    request = Request(prompt=prompt_of(100, 0), sampling=SETTINGS[1], seed=0)
    engine = Engine(model, tokenizer)
    before = engine.run([request])
    assert engine.run([request]) == before
    model.load_state_dict(other.state_dict())
    engine.refresh()
    assert engine.run([request])[0] == alone(other, tokenizer, request) != before[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = engine.run([request])
        assert low == Engine(other, tokenizer).run([request])
        model.load_state_dict(build((4, 2), seed=3).state_dict())
        engine.refresh()
        assert engine.run([request]) == Engine(build((4, 2), seed=3), tokenizer).run([request]) != low


def test_a_refresh_while_requests_run_takes_effect_after_them(tokenizer: TextTokenizer) -> None:
    model, other = build((4, 2), seed=1), build((4, 2), seed=2)
    request = Request(prompt=prompt_of(100, 0), sampling=SETTINGS[1], seed=0)
    engine = Engine(model, tokenizer)
    first = engine.submit(request)
    engine.step()
    model.load_state_dict(other.state_dict())
    engine.refresh()
    ended = []
    while engine.n_live:
        ended += [event.request_id for event in engine.step()]
    assert ended == [first]
    assert engine.run([request])[0] == alone(other, tokenizer, request)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_after_an_optimizer_step_a_refreshed_engine_draws_from_the_new_weights(
    tokenizer: TextTokenizer, dtype: torch.dtype, fused: bool
) -> None:
    """PPO once sampled from the weights it had started with."""
    model = build((4, 2), seed=1).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=fused)
    request = Request(prompt=prompt_of(100, 0), sampling=SETTINGS[1], seed=0)
    engine = Engine(model, tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = engine.run([request])
        model(torch.tensor([prompt_of(100, 0)])).square().mean().backward()
        optimizer.step()
        engine.refresh()
        after = engine.run([request])
        assert after == Engine(model, tokenizer).run([request]) != before
