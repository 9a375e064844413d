"""One training step on a CPU in bfloat16, against transformers' Llama and litgpt's GPT in the same rounds.

    tokens_per_second_vs_transformers   (aim: ratio 1.25)
    peak_memory_vs_transformers         (aim: 0.8 of the peer's, a ratio of 1.25)
    tokens_per_second_vs_litgpt         (aim: 1.1)

6.84 M parameters (256 wide, 6 layers, 8 heads, vocabulary 4,096), 8 rows of 512 tokens: forward, backward, clipping,
fused AdamW over float32 weights under bfloat16 autocast, on every side. Each peer runs as it is and compiled by torch;
the faster one counts. Ours is not compiled. Peak memory is that of the process. Compilation takes about two minutes.
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from harness import Measure, compare, finish, interleaved, parser
from torch import Tensor, nn

N_ROWS, SEQ_LEN, VOCAB_SIZE, N_STEPS = 8, 512, 4096, 2
DIM, N_LAYERS, N_HEADS, HIDDEN_DIM = 256, 6, 8, 688

Step = Callable[[Tensor, Tensor], object]


def ours(n_threads: int) -> Measure:
    """puna, with the pieces of its training loop."""
    # Imported here, so that a peer's process does not hold it.
    from puna.core.allocator import keep_freed_memory
    from puna.core.machine import SpeedConfig
    from puna.model import ModelConfig, Transformer
    from puna.training.losses import next_token_loss
    from puna.training.optimizer import OptimizerConfig, average_and_clip_gradients, make_optimizer
    from puna.training.speed import faster_blocks

    keep_freed_memory()
    config = ModelConfig(
        dim=DIM,
        n_layers=N_LAYERS,
        n_heads=N_HEADS,
        n_kv_heads=N_HEADS,
        hidden_dim=HIDDEN_DIM,
        vocab_size=VOCAB_SIZE,
        max_seq_len=SEQ_LEN,
    )
    model = Transformer(config)
    optimizer = make_optimizer(model, OptimizerConfig())

    def step(tokens: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16), faster_blocks(model, SpeedConfig()):
            nats, n_targets = next_token_loss(model, model.hidden(tokens), targets, None)
        nats.backward()
        average_and_clip_gradients(model.parameters(), n_targets=n_targets, max_norm=1.0).item()
        optimizer.step()

    return _measure(step, n_threads)


def transformers_(n_threads: int, is_compiled: bool) -> Measure:
    """transformers' LlamaForCausalLM with its own loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=DIM,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        intermediate_size=HIDDEN_DIM,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=SEQ_LEN,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    forward = torch.compile(model) if is_compiled else model

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        shifted = targets.contiguous()  # some releases view it as one row
        return forward(input_ids=tokens, labels=shifted, shift_labels=shifted).loss

    return _measure(_peer_step(model, loss), n_threads)


def litgpt_(n_threads: int, is_compiled: bool) -> Measure:
    """litgpt's GPT with the loss of its pretraining script."""
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_embd=DIM,
        intermediate_size=HIDDEN_DIM,
        vocab_size=VOCAB_SIZE,
        padded_vocab_size=VOCAB_SIZE,
        block_size=SEQ_LEN,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    model = GPT(config)
    forward = torch.compile(model) if is_compiled else model
    return _measure(
        _peer_step(model, lambda tokens, targets: chunked_cross_entropy(forward(tokens), targets)), n_threads
    )


def _peer_step(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, fused=True
    )

    def step(tokens: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nats = loss(tokens, targets)
        nats.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True).item()
        optimizer.step()

    return step


def _measure(step: Step, n_threads: int) -> Measure:
    torch.set_num_threads(n_threads)
    source = torch.Generator().manual_seed(0)

    def run() -> dict[str, float]:
        rows = torch.randint(VOCAB_SIZE, (N_STEPS, N_ROWS, SEQ_LEN + 1), generator=source)
        start = time.perf_counter()
        for tokens in rows:
            step(tokens[:, :-1], tokens[:, 1:])
        seconds = time.perf_counter() - start
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"tokens_per_second": rows[:, :, 1:].numel() / seconds, "peak_memory": peak_kb / 1024}

    return run


def main() -> None:
    """Run the rounds and print the figures."""
    options = parser(__doc__ or "", rounds=7)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--warmups", type=int, default=2, help="rounds before those that count")
    options.add_argument("--skip", action="append", default=[], help="a side to leave out")
    given = options.parse_args()
    sides = {
        "puna": partial(ours, given.threads),
        "transformers": partial(transformers_, given.threads, False),
        "transformers compiled": partial(transformers_, given.threads, True),
        "litgpt": partial(litgpt_, given.threads, False),
        "litgpt compiled": partial(litgpt_, given.threads, True),
    }
    sides = {name: side for name, side in sides.items() if name not in given.skip}
    values = interleaved(sides, rounds=given.rounds, warmups=given.warmups)
    for side, found in values.items():
        print(side, {name: [round(v) for v in rounds] for name, rounds in found.items()}, file=sys.stderr)
    speed, memory = "tokens_per_second", "peak_memory"
    best = {
        peer: max(
            (side for side in values if side.startswith(peer)),
            key=lambda side: statistics.median(values[side][speed]),
            default=None,
        )
        for peer in ("transformers", "litgpt")
    }
    figures = []
    for peer, side in best.items():
        if side is not None:
            figures.append(
                compare(f"{speed}_vs_{peer}", values["puna"][speed], values[side][speed], unit="tokens/s")
            )
    if side := best["transformers"]:
        peaks = values["puna"][memory], values[side][memory]
        figures.insert(1, compare(f"{memory}_vs_transformers", *peaks, unit="MiB", is_higher_better=False))
    medians = {
        side: {name: statistics.median(v) for name, v in found.items()} for side, found in values.items()
    }
    finish("train_cpu", figures, save=given.save, threads=given.threads, counted=best, medians=medians)


if __name__ == "__main__":
    main()
