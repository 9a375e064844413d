"""Samples of a tiny seeded model against values written down, and against a loop that shares no code with the engine.

The other tests compare the engine with itself, so a fault that is the same everywhere would pass them. Each case here
is longer than two chunks of noise, and the cache is so small that sequences give way in the middle of their responses.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.inference.engine import Engine
from puna.inference.request import Request
from puna.inference.sampling import NOISE_TOKENS, SamplingConfig
from puna.model.accounting import kv_cache_bytes
from puna.model.blockwise_attention import BLOCK_TOKENS
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer

WRITTEN = json.loads(Path(__file__).with_name("written_down.json").read_text(encoding="utf-8"))
"""Made once by `plain_sample` below; `python -m inference.test_written_down` in tests/ prints it."""
N_NEW_TOKENS = 150
CONFIG = ModelConfig(
    dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=256
)
WHOLE = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=N_NEW_TOKENS)
NUCLEUS = SamplingConfig(temperature=0.8, top_p=0.9, max_new_tokens=N_NEW_TOKENS)
ASKED = [
    Request(prompt=[(3 + 7 * i + 5 * j) % 40 for j in range(40)], sampling=sampling, seed=seed)
    for i, (sampling, seed) in enumerate([(WHOLE, 0), (NUCLEUS, 1), (WHOLE, 2**40 + 5), (NUCLEUS, 7)])
]


class _NoEnd:
    """No token ends a response, so that all are long."""

    stop_ids = ()

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def tiny_model() -> Transformer:
    model = Transformer(CONFIG, seed=3).requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight *= 1.1
    return model


def plain_sample(model: Transformer, request: Request) -> tuple[list[int], list[float]]:
    """One response, a whole forward pass a token and no cache; token k is drawn with the k-th number of the seed."""
    noise = np.random.Generator(np.random.Philox(key=request.seed)).random(N_NEW_TOKENS)
    tokens, logprobs = list(request.prompt), []
    for uniform in noise:
        logits = model(torch.tensor([tokens]))[0, -1].double()
        tempered = (logits / request.sampling.temperature).softmax(-1)
        probs, ids = tempered.sort(descending=True)
        probs[probs.cumsum(-1) - probs > request.sampling.top_p] = 0.0
        kept = torch.zeros_like(tempered).scatter(-1, ids, probs).numpy()
        token = int(np.searchsorted(kept.cumsum(), uniform * kept.sum(), side="right"))
        logprobs.append(float(logits.log_softmax(-1)[token]))
        tokens.append(token)
    return tokens[len(request.prompt) :], logprobs


def test_the_engine_draws_what_is_written_down_though_sequences_give_way() -> None:
    assert N_NEW_TOKENS > 2 * NOISE_TOKENS
    cache_bytes = 8 * kv_cache_bytes(CONFIG, batch_size=1, seq_len=BLOCK_TOKENS, bytes_per_number=4)
    engine = Engine(tiny_model(), _NoEnd(), max_batch_size=4, cache_bytes=cache_bytes)
    ids = [engine.submit(request) for request in ASKED]
    n_drawn_when_preempted, completions = [], {}
    while engine.n_live:
        before = {s.id: s for s in engine._ready().scheduler.running}
        completions |= {e.request_id: e.completion for e in engine.step() if e.completion is not None}
        n_drawn_when_preempted += [
            len(s.tokens) - len(s.request.prompt) for s in engine._ready().scheduler.waiting if s.id in before
        ]
    assert max(n_drawn_when_preempted) > NOISE_TOKENS, "one gave way after its first chunk of noise"
    for request_id, written in zip(ids, WRITTEN, strict=True):
        assert completions[request_id].token_ids == written["token_ids"]
        assert completions[request_id].logprobs == pytest.approx(written["logprobs"], abs=2e-5)


def test_alone_and_without_giving_way_the_same_is_drawn() -> None:
    for request, written in zip(ASKED, WRITTEN, strict=True):
        engine = Engine(tiny_model(), _NoEnd(), max_batch_size=1)
        assert engine.run([request])[0].token_ids == written["token_ids"]
        assert engine.n_preemptions == 0


def test_what_is_written_down_is_what_the_plain_loop_draws() -> None:
    token_ids, logprobs = plain_sample(tiny_model(), ASKED[1])
    assert token_ids == WRITTEN[1]["token_ids"]
    assert logprobs == pytest.approx(WRITTEN[1]["logprobs"], abs=2e-5)


if __name__ == "__main__":
    samples = [plain_sample(tiny_model(), request) for request in ASKED]
    rows = [{"token_ids": ids, "logprobs": [round(p, 5) for p in values]} for ids, values in samples]
    print("[" + ",\n".join(json.dumps(row) for row in rows) + "]")
