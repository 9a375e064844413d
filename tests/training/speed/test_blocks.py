"""Same gradients whatever is kept; less is kept; and the model is as it was afterwards."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from puna.core.errors import ConfigError
from puna.core.machine import SpeedConfig
from puna.model.config import ModelConfig
from puna.model.heads import ScoreModel
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer, TransformerBlock
from puna.training.config import LoopConfig
from puna.training.loop import run as train
from puna.training.losses import next_token_loss
from puna.training.speed import blocks, faster_blocks
from puna.training.speed.float8 import check_float8
from puna.training.speed.handwritten import train_block

CONFIG = ModelConfig(
    dim=32, n_layers=3, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=512
)
N_TOKENS = 300


def gradients(model: Transformer, dtype: torch.dtype, *, packed: bool = False) -> tuple[list[Tensor], int]:
    """Of one step, and how many bytes were kept for its backward pass, each storage counted once."""
    tokens = torch.randint(0, 40, (2, N_TOKENS + 1), generator=torch.Generator().manual_seed(0))
    ids = (torch.arange(N_TOKENS) // 40).expand(2, N_TOKENS) if packed else None
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            hidden = model.hidden(tokens[:, :-1], document_ids=ids)
            nats, _ = next_token_loss(model, hidden, tokens[:, 1:], None)
        nats.backward()
    return [p.grad for p in model.parameters() if p.grad is not None], sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_checkpointing_gives_the_same_gradients_to_the_last_bit(dtype: torch.dtype, packed: bool) -> None:
    model = Transformer(CONFIG)
    with faster_blocks(model, SpeedConfig()):
        expected, _ = gradients(model, dtype, packed=packed)
    for mode in ("selective", "full"):
        with faster_blocks(model, SpeedConfig(checkpointing=mode)):
            found, _ = gradients(model, dtype, packed=packed)
        assert len(found) == len(expected) == 3 * 9 + 3
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)


class Products(TorchDispatchMode):
    """Counts the products of two matrices that are really made."""

    n_made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_made += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


def test_full_makes_products_again_and_selective_does_not() -> None:
    model = Transformer(CONFIG)
    counts = {}
    for mode in ("none", "selective", "full"):
        with faster_blocks(model, SpeedConfig(checkpointing=mode)), Products() as products:
            gradients(model, torch.float32)
        counts[mode] = products.n_made
    assert counts["none"] == counts["selective"]
    assert counts["full"] - counts["none"] >= 3 * 6  # w2's product may be left out: nobody needs it again


def test_full_keeps_a_block_s_input_alone() -> None:
    model = Transformer(CONFIG)
    _, all_kept = gradients(model, torch.float32)
    with faster_blocks(model, SpeedConfig(checkpointing="full")):
        _, kept = gradients(model, torch.float32)
    assert kept < all_kept / 2


BFLOAT16 = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Grows by the input of every block that is run by hand."""
    inputs: list[Tensor] = []

    def noted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        inputs.append(x)
        return train_block(x, *args, **kwargs)

    monkeypatch.setattr(blocks, "train_block", noted)
    return inputs


def test_training_in_bfloat16_is_by_hand_and_nothing_else_is(by_hand: list[Tensor]) -> None:
    model, tokens = Transformer(CONFIG), torch.zeros(1, 4, dtype=torch.int64)
    with BFLOAT16:
        model(tokens)  # nobody asked for speed
    with faster_blocks(model, SpeedConfig()):
        model(tokens)  # float32
        with BFLOAT16:
            with torch.no_grad():
                model(tokens)
            model.requires_grad_(False)  # a cache takes no gradients, even where they are switched on
            model(tokens, cache=KVCache(CONFIG, batch_size=1, max_len=4))
            model.requires_grad_(True)
        assert not by_hand
        with BFLOAT16:
            model(tokens)
        assert len(by_hand) == CONFIG.n_layers


def test_blocks_in_8_bits_are_not_by_hand(by_hand: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "check_float8", lambda model: None)
    model, tokens = Transformer(CONFIG), torch.zeros(1, 16, dtype=torch.int64)
    with faster_blocks(model, SpeedConfig(), has_float8=True), BFLOAT16:
        model(tokens)
    assert not by_hand


def test_a_training_of_any_kind_runs_its_blocks_by_hand(
    by_hand: list[Tensor], make_task: Any, make_context: Any, config: LoopConfig
) -> None:
    """What pretraining, fine-tuning and reward models share: the loop. PPO's twin is in tests/rlhf/test_ppo.py."""
    task = make_task()  # two layers, two micro-batches per update
    settings = config.model_copy(update={"dtype": "bfloat16", "total_steps": 3})
    train(task, settings, make_context("a"))
    assert len(by_hand) == 2 * 2 * 3


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_without_gradients_and_afterwards_the_blocks_are_the_plain_ones() -> None:
    model = ScoreModel(Transformer(CONFIG))
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    expected = model(tokens)
    with faster_blocks(model, SpeedConfig(checkpointing="full", compile=True)), torch.no_grad():
        assert torch.equal(model(tokens), expected)  # nothing is compiled for this
    assert all("forward" not in vars(m) for m in model.modules() if isinstance(m, TransformerBlock))
    assert list(model.state_dict()) == list(ScoreModel(Transformer(CONFIG)).state_dict())


COMPILED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_blocks import CONFIG, gradients
from puna.model.transformer import Transformer
from puna.core.machine import SpeedConfig
from puna.training.speed import faster_blocks
model = Transformer(CONFIG)
for dtype, tolerance in (torch.float32, 1e-3), (torch.bfloat16, 0.03):
    expected, _ = gradients(model, dtype)
    with faster_blocks(model, SpeedConfig(compile=True, checkpointing=sys.argv[2])):
        found, _ = gradients(model, dtype)
    for ours, theirs in zip(found, expected, strict=True):
        assert ((ours - theirs).norm() / theirs.norm()).item() < tolerance
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_compiled_blocks_give_the_same_gradients_up_to_rounding(mode: str) -> None:
    """In a process of its own: the checks of shapes that tests switch on cannot be compiled."""
    command = [sys.executable, "-c", COMPILED, str(Path(__file__).parent), mode]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_this_machine_lacks_is_refused_by_name() -> None:
    model = Transformer(CONFIG)
    with pytest.raises(ConfigError, match="liger"), faster_blocks(model, SpeedConfig(cross_entropy="liger")):
        pass
    with pytest.raises(ConfigError, match="float8"):
        check_float8(model)
    with pytest.raises(ConfigError, match="float8"), faster_blocks(model, SpeedConfig(), has_float8=True):
        pass
