"""What torchrun starts in the tests: a tiny Llama on unequal targets, once a layout, from any state."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from puna.core.artifacts import StageContext
from puna.core.machine import Machine, SpeedConfig
from puna.core.metrics import read_metrics
from puna.core.progress import quiet
from puna.core.seeding import generator
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.training.checkpoints import Safeguards
from puna.training.config import LoopConfig
from puna.training.loop import run
from puna.training.losses import next_token_loss
from puna.training.optimizer import OptimizerConfig
from puna.training.parallel import ParallelConfig, TorchrunRanks, make_sharded, torchrun
from puna.training.parallel.ranks import SINGLE, Ranks
from puna.training.task import LossSum

MODEL = ModelConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=50, hidden_dim=44, max_seq_len=32)
SEED = 3
N_STEPS = 50
SAVED_STEP = 25
LOOP = LoopConfig(
    optimizer=OptimizerConfig(peak_lr=3e-3),
    total_steps=N_STEPS,
    warmup_steps=5,
    log_every_steps=1,
    evaluate_every_steps=20,
    checkpoint_every_steps=SAVED_STEP,
)
LOW_LOOP = LOOP.model_copy(update={"dtype": "bfloat16"})
LAYOUTS = {
    "fsdp": ParallelConfig(),
    "fsdp_reducing_always": ParallelConfig(reduce_every_micro_batch=True),
    "tp": ParallelConfig(tp=2),
    "hybrid": ParallelConfig(dp_replicate=2),
}
ON_FOUR = {"fsdp_and_tp": ParallelConfig(tp=2), "hybrid_of_four": ParallelConfig(dp_replicate=2)}
"""Two axes of two."""
LOW = ("fsdp_bf16", "tp_bf16")
"""The same in bfloat16 products."""
CHECKPOINTED = ("fsdp_full", "fsdp_selective", "tp_full", "tp_selective")
"""The same with blocks that keep less for their backward passes: gathered or cut weights are met there again."""


class CountingTask:
    """Sequences a model can learn, of which a different number of targets counts in every row."""

    def __init__(self, model: nn.Module, *, n_rows: int = 8, micro_batch_size: int = 2) -> None:
        self.model, self._n_rows, self._micro_batch_size = model, n_rows, micro_batch_size

    def micro_batches(self, step: int) -> Sequence[Tensor]:
        starts = torch.randint(0, 50, (self._n_rows, 1), generator=generator(0, "starts", step))
        strides = torch.randint(1, 4, (self._n_rows, 1), generator=generator(0, "strides", step))
        return ((starts + strides * torch.arange(17)) % 50).split(self._micro_batch_size)

    def loss(self, batch: Tensor) -> LossSum:
        targets = batch[:, 1:]
        mask = torch.arange(16) < 3 + batch[:, :1] % 13
        nats, n_targets = next_token_loss(self.model, self.model.hidden(batch[:, :-1]), targets, mask)
        return LossSum(nats, n_targets)

    def evaluate(self) -> dict[str, float]:
        losses = [self.loss(batch) for batch in self.micro_batches(10_000)]
        return {"loss": sum(x.sum.item() for x in losses) / sum(x.n_targets for x in losses)}


def train(
    folder: Path,
    ranks: Ranks = SINGLE,
    *,
    loop: LoopConfig = LOOP,
    machine: Machine = Machine(),  # noqa: B008
    **rows: int,
) -> dict[str, Tensor]:
    """Train in a folder, which may hold a state; returns the whole tensors at the end."""
    is_sharded = isinstance(ranks, TorchrunRanks)
    dtype = getattr(torch, loop.dtype)
    model = (
        make_sharded(MODEL, ranks, seed=SEED, compute_dtype=dtype)
        if is_sharded
        else Transformer(MODEL, seed=SEED)
    )
    context = StageContext(
        folder=folder / "artifact", state=folder / "state", seed=0, reporter=quiet(), machine=machine
    )
    if ranks.is_writer:
        context.folder.mkdir(parents=True, exist_ok=True)
        context.state.mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    n_held = sum(local(parameter).numel() for parameter in model.parameters())
    (folder / f"held-{ranks.rank}.json").write_text(json.dumps(n_held))
    run(CountingTask(model, **rows), loop, context, ranks=ranks, safeguards=Safeguards(keep_last=9))
    context.close()
    return {name: whole(tensor) for name, tensor in model.state_dict().items()}


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def losses(folder: Path, split: str = "train") -> list[float]:
    rows = read_metrics(folder / "artifact" / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == split]


def gradient_norms(folder: Path) -> list[float]:
    rows = read_metrics(folder / "artifact" / "metrics.jsonl")
    return [row["grad_norm"] for row in rows if row["split"] == "train"]


def main(folder: Path, names: Sequence[str]) -> None:
    """Train each layout in a folder of its name; tensors of one process are compared by the caller."""
    torch.set_num_threads(1)
    with torchrun(ParallelConfig(), torch.device("cpu")) as first:
        for name in names:
            machine = Machine()
            layout, loop = name.split("-from-")[0].removesuffix("_bf16"), LOW_LOOP if name in LOW else LOOP
            if name in CHECKPOINTED:
                layout, mode = name.split("_")
                machine = Machine(speed=SpeedConfig.model_validate({"checkpointing": mode}))
            ranks = TorchrunRanks((LAYOUTS | ON_FOUR)[layout], torch.device("cpu"))
            tensors = train(folder / name, ranks, loop=loop, machine=machine)
            if first.is_writer:
                torch.save(tensors, folder / name / "tensors.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
