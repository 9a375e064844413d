"""Decoding 7B random weights on one GPU: the share of copy bandwidth used, and tokens/s beside transformers.

    decode_bandwidth        bytes of weights and cache read a second, over the copy bandwidth (aim: 0.8)
    decode_bandwidth_int8   the same with 8-bit weights, compiled (aim: 0.7)
    decode_batch_N          tokens/s at N = 1, 8, 64, 256 beside transformers with a static cache and compile
    first_token_2k          seconds to the first token of a 2,048-token prompt

Needs CUDA: exits with code 2 without it. Written without a GPU at hand.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from harness import Measure, compare, finish, interleaved, parser

from puna.inference import Engine, Request, SamplingConfig
from puna.model import Transformer, kv_cache_bytes, n_parameters, preset

CONFIG = preset("7b", max_seq_len=4096)
N_PROMPT, N_NEW, BATCHES = 128, 128, (1, 8, 64, 256)


class _NeverEnding:
    """A tokenizer that knows no token which ends a response."""

    stop_ids: Sequence[int] = ()

    def decode(self, ids: object) -> str:
        return ""


def _prompts(n: int, n_tokens: int) -> list[list[int]]:
    source = torch.Generator().manual_seed(n_tokens)
    return torch.randint(3, CONFIG.vocab_size, (n, n_tokens), generator=source).tolist()


def _seconds(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def copy_bandwidth() -> float:
    """Bytes a second that a device copy reads and writes."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return max(2 * source.numel() / _seconds(lambda: target.copy_(source)) for _ in range(10))


def _model() -> Transformer:
    with torch.device("meta"):
        model = Transformer(CONFIG)
    model = model.to(torch.bfloat16).to_empty(device="cuda")
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    return model.requires_grad_(False)


def ours(*, has_int8_weights: bool) -> Measure:
    """puna's engine."""
    engine = Engine(
        _model(),
        _NeverEnding(),
        max_batch_size=max(BATCHES),
        has_int8_weights=has_int8_weights,
        compiles=has_int8_weights,  # else the weights would be widened in memory first
    )

    def tokens_per_second(n: int) -> float:
        def run(n_new: int) -> float:
            sampling = SamplingConfig(temperature=0, max_new_tokens=n_new)
            requests = [Request(prompt=p, sampling=sampling, seed=0) for p in _prompts(n, N_PROMPT)]
            return _seconds(lambda: engine.run(requests))

        return n * N_NEW / (run(1 + N_NEW) - run(1))

    def measure() -> dict[str, float]:
        batches = (1,) if has_int8_weights else BATCHES
        found = {f"decode_batch_{n}": tokens_per_second(n) for n in batches}
        width = 1 if has_int8_weights else 2
        cache = kv_cache_bytes(CONFIG, batch_size=1, seq_len=N_PROMPT + N_NEW // 2)
        read = width * (n_parameters(CONFIG) - CONFIG.vocab_size * CONFIG.dim) + cache
        found["bytes_per_second"] = read * found["decode_batch_1"]
        request = Request(
            prompt=_prompts(1, 2048)[0], sampling=SamplingConfig(temperature=0, max_new_tokens=1), seed=0
        )
        if not has_int8_weights:
            found["first_token_2k"] = 1 / _seconds(lambda: engine.run([request]))
        return found

    return measure


def transformers_() -> Measure:
    """transformers' generate with a static cache, compiled."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(max_position_embeddings=CONFIG.max_seq_len)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    model.generation_config.eos_token_id = None

    def run(n: int, n_tokens: int, n_new: int) -> float:
        tokens = torch.tensor(_prompts(n, n_tokens), device="cuda")
        return _seconds(
            lambda: model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                min_new_tokens=n_new,
                max_new_tokens=n_new,
                pad_token_id=0,
                cache_implementation="static",
            )
        )

    def measure() -> dict[str, float]:
        found = {
            f"decode_batch_{n}": n * N_NEW / (run(n, N_PROMPT, 1 + N_NEW) - run(n, N_PROMPT, 1))
            for n in BATCHES
        }
        return found | {"first_token_2k": 1 / run(1, 2048, 1)}

    return measure


def main() -> None:
    """Run the rounds and print the figures."""
    given = parser(__doc__ or "", rounds=3).parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write(
            "decode_gpu: expected a CUDA device, got none. Run it on a machine with a GPU and a CUDA build of torch.\n"
        )
        raise SystemExit(2)
    bandwidth = copy_bandwidth()
    torch.cuda.empty_cache()
    whole = interleaved({"puna": partial(ours, has_int8_weights=False)}, rounds=given.rounds)["puna"]
    small = interleaved({"puna": partial(ours, has_int8_weights=True)}, rounds=given.rounds)["puna"]
    peer = interleaved({"transformers": transformers_}, rounds=given.rounds)["transformers"]
    figures = [
        compare(name, values["bytes_per_second"], [bandwidth] * given.rounds, unit="bytes/s")
        for name, values in (("decode_bandwidth", whole), ("decode_bandwidth_int8", small))
    ]
    figures += [compare(name, whole[name], peer[name], unit="1/s") for name in peer]
    finish("decode_gpu", figures, save=given.save, peer="transformers", dtype="bfloat16")


if __name__ == "__main__":
    main()
