"""Generation on a CPU in bfloat16, against transformers' generate in the same rounds, and llama.cpp where it is.

    decode_batch_1   tokens/s of one greedy response (aim: ratio 1.3)
    rollout_32x8     sampled tokens/s of 32 prompts of 128 tokens x 8 samples x 64 tokens (aim: 3)
    prefill_512      prompt tokens/s until the first token of a 512-token prompt (aim: 1.0)
    decode_batch_1_vs_llama_cpp_f16   the first one beside llama.cpp on the GGUF that `puna convert` writes

The model is SmolLM2-135M's shape with random weights, or a Hugging Face folder by --model: the time is the same,
because no response ends early. 270 MB of weights are read for a token: decoding one sequence is bound by that, the
others by the products. Whole, it takes some fifteen minutes on two cores, most of them the peer's rollouts: --only and
--append measure it in pieces.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from harness import Figure, Measure, compare, earlier_rounds, finish, interleaved, parser

from puna.conversion.convert import Dtype, Format, convert
from puna.core.progress import quiet
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
FIGURES = ("decode_batch_1", "prefill_512", "rollout_32x8")
LLAMA_CPP = "llama.cpp"


class _NeverEnding:
    """A tokenizer that knows no token which ends a response: every one has its full length."""

    stop_ids: Sequence[int] = ()

    def decode(self, ids: object) -> str:
        return ""


def _prompt(seed: int, n_tokens: int) -> list[int]:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, SMOLLM2_135M.vocab_size, (n_tokens,), generator=source).tolist()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ours(folder: str, n_threads: int, only: tuple[str, ...]) -> Measure:
    """puna's engine."""
    torch.set_num_threads(n_threads)
    model = load_model(Path(folder), dtype=torch.bfloat16, device="cpu")
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

    return partial(_measure, dict(zip(FIGURES, (decode, prefill, rollout), strict=True)), only)


def transformers_(folder: str, n_threads: int, only: tuple[str, ...]) -> Measure:
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

    return partial(_measure, dict(zip(FIGURES, (decode, prefill, rollout), strict=True)), only)


def llama_cpp_(gguf: str, n_threads: int, only: tuple[str, ...]) -> Measure:
    """llama.cpp through llama-cpp-python, on the file that we write of the same weights."""
    import llama_cpp

    llama = llama_cpp.Llama(gguf, n_ctx=2048, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
    counter = iter(range(1_000_000))

    def decode() -> float:
        llama.reset()
        events = llama.generate(_prompt(next(counter), 16), temp=0.0, repeat_penalty=1.0)
        next(events)
        return N_DECODED / _seconds(lambda: [next(events) for _ in range(N_DECODED)])

    return partial(_measure, {"decode_batch_1": decode}, only)


def _measure(figures: Mapping[str, Callable[[], float]], only: tuple[str, ...]) -> dict[str, float]:
    return {name: figure() for name, figure in figures.items() if name in only}


def _random_model(folder: Path) -> Path:
    """SmolLM2-135M's shape, made once."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_model(Transformer(SMOLLM2_135M, seed=0).to(torch.bfloat16), folder)
    return folder


def _f16(folder: Path, cache: Path) -> Path:
    """The folder's weights as a GGUF with its tokenizer, made once."""
    path = cache / f"{folder.name}-f16.gguf"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        convert(folder, path, to=Format.GGUF, dtype=Dtype.FP16, reporter=quiet())
    return path


def _figures(values: Mapping[str, Mapping[str, list[float]]]) -> list[Figure]:
    """Against transformers, then against llama.cpp; equally many rounds a side."""
    figures = []
    for peer, suffix in (("transformers", ""), (LLAMA_CPP, "_vs_llama_cpp_f16")):
        for name in FIGURES:
            sides = [values.get(side, {}).get(name, []) for side in ("puna", peer)]
            n = min(map(len, sides))
            if n:
                figures.append(compare(name + suffix, sides[0][-n:], sides[1][-n:], unit="tokens/s"))
    return figures


def main() -> None:
    """Run the rounds and print the figures."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("--model", type=Path, help="a Hugging Face folder of SmolLM2-135M's shape")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "puna-benchmarks")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument(
        "--only", action="append", choices=FIGURES, help="a figure to measure; all by default"
    )
    options.add_argument("--append", action="store_true", help="add to the rounds that --save kept today")
    options.add_argument("--warmups", type=int, default=1, help="rounds before those that count")
    given = options.parse_args()
    folder = given.model or _random_model(given.cache / "smollm2-135m-random")
    only = tuple(given.only or FIGURES)
    sides = {
        "puna": partial(ours, str(folder), given.threads, only),
        "transformers": partial(transformers_, str(folder), given.threads, only),
    }
    if given.model and "decode_batch_1" in only and importlib.util.find_spec("llama_cpp"):
        sides[LLAMA_CPP] = partial(llama_cpp_, str(_f16(folder, given.cache)), given.threads, only)
    values = interleaved(sides, rounds=given.rounds, warmups=given.warmups)
    earlier = earlier_rounds("sampling_cpu") if given.append else {}
    for side, known in earlier.items():
        for name, rounds in known.items():
            found = values.setdefault(side, {})
            found[name] = [*rounds, *found.get(name, [])]
    rounded = {
        side: {name: [round(value, 1) for value in rounds] for name, rounds in found.items()}
        for side, found in values.items()
    }
    print(rounded, file=sys.stderr)
    finish(
        "sampling_cpu",
        _figures(values),
        save=given.save,
        threads=given.threads,
        peers=[side for side in values if side != "puna"],
        dtype="bfloat16",
        model=folder.name if given.model else "random weights",
        torch=torch.__version__,
        rounds=rounded,
    )


if __name__ == "__main__":
    main()
