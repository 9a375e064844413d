"""Pretraining on real text, beside transformers' model of the same size on the same tokens: held-out perplexity.

    perplexity_SOURCE    of held-out text of each source (aim: ratio >= 1, which is peer / ours)
    perplexity_all       of all sources together
    tokens_per_second    while training, where both sides had as many threads

Both sides see the same rows in the same order, the same AdamW, schedule, clipping and bfloat16 autocast; each has its
own model code, initial weights and loss. Perplexity is measured by one function in float32 for both. The token budget
is what puna trains in --minutes on this machine, or --tokens; the peer gets the same number, however long it takes.

Text: PUNA_DATA's books, WikiText, Stack Exchange and TeX, and the Python standard library. Everything goes to --out;
a run that was stopped goes on where it was. --side does one half at a time; figures come when both are done.
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from harness import Figure, compare, finish, parser
from torch import Tensor

from puna.core.artifacts import read_manifest
from puna.core.progress import Reporter
from puna.core.seeding import derive_seed
from puna.core.storage import write_atomically
from puna.model import ModelConfig, Transformer, load_model, n_parameters
from puna.pretraining import PretrainingConfig, pretrain
from puna.pretraining.task import PretrainingTask
from puna.pretraining_data.shards import ShardConfig, tokenize
from puna.pretraining_data.sources import SourceConfig
from puna.pretraining_data.stage import DataConfig
from puna.pretraining_data.stage import build as build_corpus
from puna.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig
from puna.tokenizer.train import train as train_tokenizer
from puna.training.config import LoopConfig
from puna.training.optimizer import OptimizerConfig
from puna.training.token_shards import TokenStream, read_index

SIZES = {
    "tiny": ModelConfig(
        dim=32, n_layers=2, n_heads=2, n_kv_heads=2, hidden_dim=88, vocab_size=512, max_seq_len=512
    ),
    "12m": ModelConfig(
        dim=320, n_layers=8, n_heads=10, n_kv_heads=10, hidden_dim=864, vocab_size=4096, max_seq_len=512
    ),
    "17m": ModelConfig(
        dim=384, n_layers=8, n_heads=12, n_kv_heads=12, hidden_dim=1024, vocab_size=4096, max_seq_len=512
    ),
}
BATCH_ROWS, SEQ_LEN, MAX_VALIDATION_TOKENS = 16, 512, 60_000
SEED = 0
N_CALIBRATION_STEPS = 6
SAVE_SECONDS = 120


def sources(scale: float) -> tuple[SourceConfig, ...]:
    """The corpus; scale shortens every source, for trials."""

    def of(name: str, reader: str, folder: str | None, max_bytes: int, **rest: Any) -> SourceConfig:
        path = f"${{PUNA_DATA}}/pretraining/{folder}" if folder else None
        limit = max(20_000, int(scale * max_bytes))
        return SourceConfig(name=name, reader=reader, path=path, max_bytes=limit, **rest)

    return (
        of("books", "gutenberg", "books", 18_000_000),
        of("wikitext", "wikitext", "wikitext2", 4_000_000),
        of("stackexchange", "stackexchange", "stackexchange", 4_000_000),
        of("maths", "tex", "maths_tex", 4_000_000, is_prose=False),
        of("python", "python_stdlib", None, 12_000_000, is_prose=False),
    )


def prepare(out: Path, size: ModelConfig, scale: float, reporter: Reporter) -> None:
    """Corpus, tokenizer and shards; skipped when they are there."""
    common: dict[str, Any] = {"seed": SEED, "reporter": reporter}
    config = DataConfig(sources=sources(scale), validation_fraction=0.03)
    build_corpus(config, documents=None, out=out / "data", **common)
    vocabulary = TokenizerConfig(vocab_size=size.vocab_size, max_seq_len=size.max_seq_len)
    train_tokenizer(vocabulary, data=out / "data", dialogs=None, out=out / "tokenizer", **common)
    folders = {"data": out / "data", "tokenizer": out / "tokenizer", "out": out / "shards"}
    tokenize(ShardConfig(), **folders, **common)


def settings(size: ModelConfig, total_steps: int) -> PretrainingConfig:
    """What both sides are trained with: the paper's recipe at this size."""
    return PretrainingConfig(
        model=size,
        seq_len=SEQ_LEN,
        validation_tokens=8192,
        loop=LoopConfig(
            optimizer=OptimizerConfig(peak_lr=1.5e-3),
            total_steps=total_steps,
            warmup_steps=min(100, total_steps // 10),
            batch_size=BATCH_ROWS,
            micro_batch_size=BATCH_ROWS,
            dtype="bfloat16",
            checkpoint_every_steps=100,
        ),
    )


def tokens_per_second(out: Path, size: ModelConfig) -> float:
    """Speed of a few of puna's updates here and now."""
    config = settings(size, N_CALIBRATION_STEPS)
    folders = {"data": out / "shards", "tokenizer": out / "tokenizer", "out": out / "calibration"}
    manifest = pretrain(config, **folders, seed=SEED)
    return manifest.metrics["tokens_per_second"]


def ours(out: Path, config: PretrainingConfig, reporter: Reporter) -> dict[str, float]:
    """Train puna's model as a stage, which resumes by itself."""
    folders = {"data": out / "shards", "tokenizer": out / "tokenizer", "out": out / "ours"}
    metrics = pretrain(config, **folders, seed=SEED, reporter=reporter).metrics
    return {"tokens_per_second": metrics["tokens_per_second"], "train_loss": metrics["train_loss"]}


def peer(out: Path, config: PretrainingConfig, size: ModelConfig, reporter: Reporter) -> dict[str, float]:
    """Train transformers' LlamaForCausalLM on the same rows, as its users would; resumes from its last state."""
    model = peer_model(size)
    rows = PretrainingTask(
        Transformer(smallest(size)),
        config,
        data=out / "shards",
        bos_id=Tokenizer.load(out / "tokenizer").bos_id,
        seed=SEED,
    )
    loop = config.loop
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    exempt = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": loop.optimizer.weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ],
        betas=(loop.optimizer.beta1, loop.optimizer.beta2),
        eps=loop.optimizer.eps,
        fused=True,
    )
    state, first, seconds, losses = out / "peer.pt", 0, 0.0, list[float]()
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        if saved["total_steps"] == loop.n_steps:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            first, seconds, losses = saved["step"], saved["seconds"], saved["losses"]
    last_save = time.monotonic()
    with reporter.track("transformers", loop.n_steps, "step", completed=first) as tracker:
        for step in range(first, loop.n_steps):
            started = time.perf_counter()
            losses.append(_peer_step(model, optimizer, config, rows, step))
            seconds += time.perf_counter() - started
            tracker.advance(loss=losses[-1], tokens_per_second=(step + 1) * BATCH_ROWS * SEQ_LEN / seconds)
            is_last = step + 1 == loop.n_steps
            if is_last or time.monotonic() - last_save > SAVE_SECONDS:
                facts = {"step": step + 1, "seconds": seconds, "losses": losses, "total_steps": loop.n_steps}
                tensors = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(tensors | facts, state.with_suffix(".partial"))
                state.with_suffix(".partial").rename(state)
                last_save = time.monotonic()
    n_tokens = loop.n_steps * BATCH_ROWS * SEQ_LEN
    return {"tokens_per_second": n_tokens / seconds, "train_loss": statistics.mean(losses[-10:])}


def _peer_step(
    model: Any, optimizer: Any, config: PretrainingConfig, rows: PretrainingTask, step: int
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = config.loop.lr(step)
    optimizer.zero_grad(set_to_none=True)
    (batch,) = rows.micro_batches(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.loop.optimizer.max_grad_norm)
    optimizer.step()
    return loss.item()


def peer_model(size: ModelConfig) -> Any:
    """transformers' Llama of that size with its own initial weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(derive_seed(SEED, "peer"))
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=size.dim,
            intermediate_size=size.hidden_dim,
            num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads,
            num_key_value_heads=size.n_kv_heads,
            vocab_size=size.vocab_size,
            max_position_embeddings=size.max_seq_len,
            rms_norm_eps=size.norm_eps,
            rope_theta=size.rope_theta,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
        )
    )


def smallest(size: ModelConfig) -> ModelConfig:
    """The smallest model that can stand in a task whose rows alone are wanted."""
    return size.model_copy(update={"dim": 2 * size.n_heads, "n_layers": 1, "hidden_dim": 2})


def perplexities(out: Path, logits: Any) -> dict[str, tuple[float, int]]:
    """Nats and tokens of held-out text by source, in rows of SEQ_LEN targets, in float32: the same for both sides."""
    index = read_index(out / "shards")
    found = {}
    for source, shard in sorted(index.validation.items()):
        stream = TokenStream(out / "shards", [shard], index.dtype)
        n_rows = min(len(stream), MAX_VALIDATION_TOKENS) // SEQ_LEN
        n_rows = min(n_rows, stream.n_windows(SEQ_LEN))
        nats, n = 0.0, 0
        for start in range(0, n_rows, 8):
            rows = stream.windows(range(start, min(start + 8, n_rows)), SEQ_LEN)
            with torch.no_grad():
                scores: Tensor = logits(rows[:, :-1]).float()
            nats += torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"
            ).item()
            n += rows.shape[0] * SEQ_LEN
        if n:
            found[source] = (nats, n)
    return found


def side(name: str, out: Path, size: ModelConfig, config: PretrainingConfig, reporter: Reporter) -> None:
    """Train and measure one side; its numbers stay in results_NAME.json."""
    started = time.monotonic()
    if name == "ours":
        numbers = ours(out, config, reporter)
        model = load_model(out / "ours", device="cpu").eval()
        measured = perplexities(out, model)
    else:
        numbers = peer(out, config, size, reporter)
        theirs = peer_model(size)
        theirs.load_state_dict(torch.load(out / "peer.pt", weights_only=True)["model"])
        measured = perplexities(out, lambda tokens: theirs.eval()(input_ids=tokens).logits)
    record = {
        "steps": config.loop.n_steps,
        "tokens": config.loop.n_steps * BATCH_ROWS * SEQ_LEN,
        "threads": torch.get_num_threads(),
        "held_out": measured,
        "seconds_of_this_call": time.monotonic() - started,
        **numbers,
    }
    write_atomically(out / f"results_{name}.json", json.dumps(record, indent=1) + "\n")


def figures(results: Mapping[str, Any]) -> list[Figure]:
    """Perplexity by source and in all, then speed where threads are equal; above 1, ours is better. n is 1."""
    rows = {}
    sides = [results[name]["held_out"] for name in ("ours", "peer")]
    for source in sides[0]:
        rows[source] = [found[source] for found in sides]
    rows["all"] = [[sum(column) for column in zip(*found.values(), strict=True)] for found in sides]
    made = []
    for source, losses in rows.items():
        values = [math.exp(nats / n) for nats, n in losses]
        unit = f"perplexity over {losses[0][1]} tokens"
        made.append(
            compare(f"perplexity_{source}", *([v] for v in values), unit=unit, is_higher_better=False)
        )
    if results["ours"]["threads"] == results["peer"]["threads"]:
        speeds = ([results[name]["tokens_per_second"]] for name in ("ours", "peer"))
        made.append(compare("tokens_per_second", *speeds, unit="tokens/s"))
    return made


def main() -> None:
    """Prepare, train one side or both, and print the figures when both are there."""
    options = parser(__doc__ or "", rounds=1)
    options.add_argument("--out", type=Path, default=Path("runs/pretrain_real_cpu"))
    options.add_argument("--side", choices=("ours", "peer", "both"), default="both")
    options.add_argument("--minutes", type=float, default=30.0, help="what puna's side may take")
    options.add_argument("--tokens", type=int, help="train on so many instead of timing a few updates first")
    options.add_argument("--size", choices=sorted(SIZES), default="12m")
    options.add_argument("--data-scale", type=float, default=1.0, help="share of the text, for trials")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    size, out, reporter = SIZES[given.size], given.out, Reporter()
    out.mkdir(parents=True, exist_ok=True)
    prepare(out, size, given.data_scale, reporter)
    config = settings(size, budget(out, size, given.minutes, given.tokens) // (BATCH_ROWS * SEQ_LEN))
    for name in ("ours", "peer") if given.side == "both" else (given.side,):
        side(name, out, size, config, reporter)
    paths = {name: out / f"results_{name}.json" for name in ("ours", "peer")}
    if not all(path.is_file() for path in paths.values()):
        print("The other side is still to be trained: run again with --side.", file=sys.stderr)
        return
    results = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    if results["ours"]["tokens"] != results["peer"]["tokens"]:
        sys.exit("The sides were trained on different token budgets: run both again with one --tokens.")
    shards = read_manifest(out / "shards").metrics
    facts = {
        "peer": "transformers.LlamaForCausalLM",
        "n_parameters": n_parameters(size),
        "tokens": results["ours"]["tokens"],
        "tokens_in_corpus": shards["n_train_tokens"],
        "dtype": "bfloat16",
        "sides": results,
    }
    finish("pretrain_real_cpu", figures(results), save=given.save, **facts)


def budget(out: Path, size: ModelConfig, minutes: float, tokens: int | None) -> int:
    """Tokens to train on; settled by the first call for a folder, so that both halves and resumptions agree."""
    path = out / "budget.json"
    asked = {"size": size.model_dump(mode="json"), "minutes": None if tokens else minutes, "asked": tokens}
    if path.is_file() and (kept := json.loads(path.read_text(encoding="utf-8")))["for"] == asked:
        return kept["tokens"]
    n_tokens = tokens or int(tokens_per_second(out, size) * minutes * 60)
    n_tokens = max(BATCH_ROWS * SEQ_LEN, n_tokens)
    write_atomically(path, json.dumps({"for": asked, "tokens": n_tokens}) + "\n")
    return n_tokens


if __name__ == "__main__":
    main()
