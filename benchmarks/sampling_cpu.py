"""Generation on a CPU in bfloat16, against transformers' generate in the same rounds; with llama.cpp where it is.

    decode_batch_1   tokens/s of one greedy response (aim: ratio 1.3)
    rollout_32x8     sampled tokens/s of 32 prompts of 128 tokens x 8 samples x 64 tokens (aim: 3)
    prefill_512      prompt tokens/s until the first token of a 512-token prompt (aim: 1.0)

The model is SmolLM2-135M's shape with random weights, or a Hugging Face folder by --model: the time is the same,
because no response ends early. 30 M multiplications in 270 MB of weights a token: decoding one sequence is bound by
reading the weights, the others by the products.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from harness import Measure, compare, finish, interleaved, parser

from puna.inference import Engine, Request, SamplingConfig
from puna.model import ModelConfig, Transformer, load_model, save_model

SMOLLM2_135M = ModelConfig(
    dim=576,
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    hidden_dim=1536,
    vocab_size=49_152,
    rope_theta=100_000,
    max_seq_len=2048,
    tie_embeddings=True,
)
N_DECODED, N_PREFILLED = 48, 512
N_PROMPTS, N_SAMPLES, N_PROMPT_TOKENS, N_NEW = 32, 8, 128, 64


class _NeverEnding:
    """A tokenizer whose end-of-sequence token does not exist: every response has its full length."""

    eos_id = -1

    def decode(self, ids: object) -> str:
        return ""


def _prompt(seed: int, n_tokens: int) -> list[int]:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, SMOLLM2_135M.vocab_size, (n_tokens,), generator=source).tolist()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ours(folder: str, n_threads: int, skip: tuple[str, ...]) -> Measure:
    """puna's engine."""
    torch.set_num_threads(n_threads)
    model = load_model(Path(folder), dtype=torch.bfloat16)
    counter = iter(range(1_000_000))
    chat = Engine(model, _NeverEnding(), max_batch_size=1)
    crowd = Engine(model, _NeverEnding(), max_batch_size=N_PROMPTS * N_SAMPLES)

    def decode() -> float:
        sampling = SamplingConfig(temperature=0, max_new_tokens=1 + N_DECODED)
        events = chat.stream(
            Request(prompt=_prompt(next(counter), 16), sampling=sampling, seed=0, wants_stream=True)
        )
        next(events)
        return N_DECODED / _seconds(lambda: list(events))

    def prefill() -> float:
        sampling = SamplingConfig(temperature=0, max_new_tokens=1)
        request = Request(prompt=_prompt(next(counter), N_PREFILLED), sampling=sampling, seed=0)
        return N_PREFILLED / _seconds(lambda: chat.run([request]))

    def rollout() -> float:
        sampling = SamplingConfig(temperature=1, top_p=1, max_new_tokens=N_NEW)
        prompts = [_prompt(next(counter), N_PROMPT_TOKENS) for _ in range(N_PROMPTS)]
        requests = [
            Request(prompt=prompt, sampling=sampling, seed=seed)
            for prompt in prompts
            for seed in range(N_SAMPLES)
        ]
        return N_PROMPTS * N_SAMPLES * N_NEW / _seconds(lambda: crowd.run(requests))

    return partial(_measure, decode, prefill, rollout, skip)


def transformers_(folder: str, n_threads: int, skip: tuple[str, ...]) -> Measure:
    """transformers' generate, as its documentation has it: bfloat16, SDPA, key-value cache."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(n_threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    counter = iter(range(1_000_000))

    def generate(prompts: list[list[int]], n_new: int, **options: object) -> object:
        tokens = torch.tensor(prompts)
        return model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            min_new_tokens=n_new,
            max_new_tokens=n_new,
            pad_token_id=0,
            **options,
        )

    def decode() -> float:
        prompt = [_prompt(next(counter), 16)]
        first = _seconds(lambda: generate(prompt, 1, do_sample=False))
        return N_DECODED / (_seconds(lambda: generate(prompt, 1 + N_DECODED, do_sample=False)) - first)

    def prefill() -> float:
        prompt = [_prompt(next(counter), N_PREFILLED)]
        return N_PREFILLED / _seconds(lambda: generate(prompt, 1, do_sample=False))

    def rollout() -> float:
        prompts = [_prompt(next(counter), N_PROMPT_TOKENS) for _ in range(N_PROMPTS)]
        sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": N_SAMPLES}
        return N_PROMPTS * N_SAMPLES * N_NEW / _seconds(lambda: generate(prompts, N_NEW, **sampled))

    return partial(_measure, decode, prefill, rollout, skip)


def _measure(
    decode: Callable[[], float],
    prefill: Callable[[], float],
    rollout: Callable[[], float],
    skip: tuple[str, ...],
) -> dict[str, float]:
    figures = {"decode_batch_1": decode, "prefill_512": prefill, "rollout_32x8": rollout}
    return {name: figure() for name, figure in figures.items() if name not in skip}


def _random_model(folder: Path) -> Path:
    """SmolLM2-135M's shape, made once."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_model(Transformer(SMOLLM2_135M, seed=0).to(torch.bfloat16), folder)
    return folder


def main() -> None:
    """Run the rounds and print the figures."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("--model", type=Path, help="a Hugging Face folder of SmolLM2-135M's shape")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "puna-benchmarks")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--skip", action="append", default=[], help="a figure to leave out")
    options.add_argument("--warmups", type=int, default=1, help="rounds before those that count")
    given = options.parse_args()
    folder = str(given.model or _random_model(given.cache / "smollm2-135m-random"))
    skip = tuple(given.skip)
    sides = {
        "puna": partial(ours, folder, given.threads, skip),
        "transformers": partial(transformers_, folder, given.threads, skip),
    }
    values = interleaved(sides, rounds=given.rounds, warmups=given.warmups)
    for side, found in values.items():
        print(side, {name: [round(v, 1) for v in rounds] for name, rounds in found.items()}, file=sys.stderr)
    figures = [
        compare(name, values["puna"][name], values["transformers"][name], unit="tokens/s")
        for name in values["puna"]
    ]
    finish(
        "sampling_cpu", figures, save=given.save, threads=given.threads, peer="transformers", dtype="bfloat16"
    )


if __name__ == "__main__":
    main()
