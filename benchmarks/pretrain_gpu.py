"""Pretraining speed on one GPU with random tokens. Not run on a GPU yet.

    mfu_7b                  share of --peak-tflops, 7B, 4,096 tokens a row, full AdamW state (aim: 0.5)
    tokens_per_second_7b
    tokens_per_second_1b    1B class, 16 layers of 2,048 (aim: 55,000)

A peer is not run: "peer" is the aim, for MFU and for tokens/s. Compiled blocks, bfloat16 autocast over float32 weights,
fused AdamW: 7B needs about 115 GB for weights, gradients and moments, an H200. `--model tiny` runs anywhere.
"""

import statistics
import time

import torch
from harness import Figure, commit, finish, hardware, parser

from puna.core.machine import SpeedConfig
from puna.model import ModelConfig, Transformer
from puna.model.accounting import training_flops_per_token
from puna.model.config import preset
from puna.training.losses import next_token_loss
from puna.training.optimizer import OptimizerConfig, average_and_clip_gradients, make_optimizer
from puna.training.speed import faster_blocks

TINY = ModelConfig(dim=32, n_layers=2, n_heads=2, n_kv_heads=2, hidden_dim=64, vocab_size=64, max_seq_len=64)
MODELS = {
    "7b": preset("7b"),
    "1b": ModelConfig(
        dim=2048, n_layers=16, n_heads=16, n_kv_heads=16, hidden_dim=5504, vocab_size=32_000, max_seq_len=4096
    ),
    "tiny": TINY,
}
AIMS = {"7b": (0.5, 10_500.0), "1b": (0.4, 55_000.0), "tiny": (1.0, 1.0)}
"""MFU and tokens/s. Of 7B's 50 % of 989 TFLOP/s, and of the 1B class in the issue."""


def rates(
    config: ModelConfig, speed: SpeedConfig, *, device: str, rows: int, steps: int, dtype: str
) -> list[float]:
    """Tokens per second of each step after two that warm up."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device=device)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0) if weight.ndim == 1 else weight.normal_(0.0, 0.02)
    optimizer = make_optimizer(model, OptimizerConfig())
    found = []
    with faster_blocks(model, speed, has_float8=dtype == "float8"):
        for _ in range(2 + steps):
            tokens = torch.randint(config.vocab_size, (rows, config.max_seq_len + 1), device=device)
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16):
                nats, n_targets = next_token_loss(model, model.hidden(tokens[:, :-1]), tokens[:, 1:], None)
            nats.backward()
            norm = average_and_clip_gradients(model.parameters(), n_targets=n_targets, max_norm=1.0)
            optimizer.step()
            norm.item()
            if device == "cuda":
                torch.cuda.synchronize()
            found.append(n_targets / (time.perf_counter() - start))
    return found[2:]


def main() -> None:
    """Measure one model and print the figures."""
    options = parser(__doc__ or "", rounds=10)
    options.add_argument("--model", choices=MODELS, default="7b")
    options.add_argument("--rows", type=int, default=1, help="rows a step")
    options.add_argument("--checkpointing", choices=["none", "selective", "full"], default="selective")
    options.add_argument("--eager", action="store_true", help="do not compile the blocks")
    options.add_argument("--cross-entropy", choices=["own", "liger"], default="own")
    options.add_argument("--dtype", choices=["bfloat16", "float8"], default="bfloat16")
    options.add_argument("--peak-tflops", type=float, default=989.0, help="of bfloat16, for MFU")
    given = options.parse_args()
    config = MODELS[given.model]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    speed = SpeedConfig(
        checkpointing=given.checkpointing, compile=not given.eager, cross_entropy=given.cross_entropy
    )
    found = rates(config, speed, device=device, rows=given.rows, steps=given.rounds, dtype=given.dtype)
    flops = training_flops_per_token(config, seq_len=config.max_seq_len)
    values = {
        f"mfu_{given.model}": [rate * flops / given.peak_tflops / 1e12 for rate in found],
        f"tokens_per_second_{given.model}": found,
    }
    low, _, high = statistics.quantiles(found, n=4, method="inclusive")
    figures = [
        Figure(
            name=name,
            ours=round(statistics.median(rounds), 4),
            peer=aim,
            ratio=round(statistics.median(rounds) / aim, 4),
            unit="share of peak" if name.startswith("mfu") else "tokens/s",
            n=len(rounds),
            spread=round((high - low) / statistics.median(found), 4),
            hardware=hardware(),
            commit=commit(),
        )
        for (name, rounds), aim in zip(values.items(), AIMS[given.model], strict=True)
    ]
    finish(
        "pretrain_gpu",
        figures,
        save=given.save,
        model=given.model,
        rows=given.rows,
        dtype=given.dtype,
        speed=speed.model_dump(),
        peer="the aim of the project, not a program",
    )


if __name__ == "__main__":
    main()
