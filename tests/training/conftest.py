"""A task small enough to train in a second: a two-layer Llama on random tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from puna.core.artifacts import StageContext
from puna.core.progress import quiet
from puna.core.seeding import generator
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.training.config import LoopConfig
from puna.training.losses import next_token_loss
from puna.training.optimizer import OptimizerConfig
from puna.training.task import LossSum

TINY = ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=32, hidden_dim=32, max_seq_len=16)


class RandomTokensTask:
    """Rows drawn from (seed, step); `before_loss` lets a test break in."""

    def __init__(self, *, rows: int = 4, micro_batch_size: int = 2, seed: int = 0) -> None:
        self.model: nn.Module = Transformer(TINY, seed=seed)
        self.rows, self.micro_batch_size, self.seed = rows, micro_batch_size, seed
        self.before_loss: Callable[[int], None] = lambda step: None
        self.step = 0

    def micro_batches(self, step: int) -> Sequence[Tensor]:
        self.step = step
        rows = torch.randint(0, 32, (self.rows, 17), generator=generator(self.seed, "rows", step))
        return rows.split(self.micro_batch_size)

    def loss(self, batch: Tensor) -> LossSum:
        self.before_loss(self.step)
        targets = batch[:, 1:]
        mask = targets % 3 != 0  # micro-batches differ in their number of targets
        hidden = self.model.hidden(batch[:, :-1])
        nats, n_targets = next_token_loss(self.model, hidden, targets, mask)
        is_odd = (targets[mask] % 2).sum()
        return LossSum(nats, n_targets, {"odd_fraction": is_odd}, n_tokens=targets.numel())

    def evaluate(self) -> dict[str, float]:
        loss = self.loss(torch.randint(0, 32, (2, 17), generator=generator(99, "held out")))
        return {"loss": loss.sum.item() / loss.n_targets}


@pytest.fixture
def make_task() -> type[RandomTokensTask]:
    return RandomTokensTask


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[[str], StageContext]:
    """A build's context in a named folder; the same name twice is what a resumed build gets."""

    def make(name: str) -> StageContext:
        folder, state = tmp_path / name / "artifact", tmp_path / name / "state"
        folder.mkdir(parents=True, exist_ok=True)
        state.mkdir(exist_ok=True)
        return StageContext(folder=folder, state=state, seed=0, reporter=quiet())

    return make


@pytest.fixture
def config() -> LoopConfig:
    return LoopConfig(
        optimizer=OptimizerConfig(peak_lr=3e-3),
        total_steps=20,
        warmup_steps=3,
        log_every_steps=3,
        evaluate_every_steps=5,
        checkpoint_every_steps=4,
    )
