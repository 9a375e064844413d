"""Training states beside the training: a copy, kept or removed by rule, passed over when damaged, and never fatal."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from puna.core.errors import CheckpointError
from puna.training.checkpoints import Checkpointer, Safeguards, storage
from puna.training.optimizer import OptimizerConfig, make_optimizer
from puna.training.parallel.ranks import SINGLE

Made = tuple[nn.Module, torch.optim.Optimizer, Checkpointer, list[str]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """A module with an optimizer that has moments, and a checkpointer that tells a list."""

    def make(seed: int = 0, width: int = 6, **safeguards: object) -> Made:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 2))
        optimizer = make_optimizer(model, OptimizerConfig())
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        told: list[str] = []
        checkpointer = Checkpointer(
            tmp_path / "state",
            model=model,
            optimizer=optimizer,
            ranks=SINGLE,
            safeguards=Safeguards(**safeguards),
            tell=told.append,
        )
        return model, optimizer, checkpointer, told

    return make


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def steps(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_written_is_the_moment_of_the_call(make, tmp_path: Path, monkeypatch) -> None:
    """Training goes on while the disk is waited for; the state is that of before."""
    gate, hash_share = threading.Event(), storage.hash_share
    monkeypatch.setattr(storage, "hash_share", lambda *a, **k: gate.wait(10) and hash_share(*a, **k))
    monkeypatch.setattr(storage.dcp, "save", _after(gate, storage.dcp.save))
    model, optimizer, checkpointer, _ = make()
    before = weights(model)
    with checkpointer:
        checkpointer.save(1, {"a": 1.5})
        assert not (tmp_path / "state" / "step-1").exists()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        optimizer.step()
        gate.set()
    other, _, again, _ = make(seed=9)
    with again:
        resumed = again.load()
    assert resumed is not None
    assert (resumed.step, resumed.extra) == (1, {"a": 1.5})
    assert all(torch.equal(a, b) for a, b in zip(before, weights(other), strict=True))


def _after(gate: threading.Event, action: Callable) -> Callable:
    def wait(*arguments: object, **named: object) -> object:
        gate.wait(10)
        return action(*arguments, **named)

    return wait


def test_the_newest_and_the_permanent_are_kept(make, tmp_path: Path) -> None:
    _, _, checkpointer, _ = make(keep_last=2, permanent_every_steps=30)
    with checkpointer:
        for step in range(10, 91, 10):
            checkpointer.save(step, {})
    assert steps(tmp_path / "state") == {"step-30", "step-60", "step-80", "step-90"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("flipped byte", "__0_0.distcp has other bytes"),
        ("truncated", "__0_0.distcp has .* bytes, not"),
        ("missing", "__0_0.distcp is missing"),
        ("facts", "state.json has other bytes"),
        ("no sums", "checksums.json is missing"),
        ("torn sums", "checksums.json cannot be read"),
    ],
)
def test_a_damaged_newest_state_gives_way_to_the_one_before(make, tmp_path, damage: str, reason: str) -> None:
    model, _, checkpointer, _ = make()
    with checkpointer:
        checkpointer.save(1, {})
        expected = weights(model)
        checkpointer.wait()
        with torch.no_grad():
            model[0].weight.add_(1.0)
        checkpointer.save(2, {})
    newest = tmp_path / "state" / "step-2"
    shard = newest / "__0_0.distcp"
    if damage == "flipped byte":
        flip(shard)
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "missing":
        shard.unlink()
    elif damage == "facts":
        flip(newest / "state.json")
    elif damage == "no sums":
        (newest / "checksums.json").unlink()
    else:
        (newest / "checksums.json").write_text("{")
    other, _, again, told = make(seed=9)
    with again:
        resumed = again.load()
        assert resumed is not None
        assert resumed.step == 1
        assert all(torch.equal(a, b) for a, b in zip(expected, weights(other), strict=True))
        assert re.search(f"step-2: {reason}", told[0]), told
        assert "step-1 is whole" in told[1]
        assert steps(tmp_path / "state") == {"step-1", "damaged-step-2"}
        again.save(2, {})
    assert steps(tmp_path / "state") == {"step-1", "step-2"}


def test_when_all_are_damaged_nothing_is_removed(make, tmp_path: Path) -> None:
    _, _, checkpointer, _ = make()
    with checkpointer:
        checkpointer.save(1, {})
        checkpointer.save(2, {})
    for step in ("step-1", "step-2"):
        flip(tmp_path / "state" / step / "__0_0.distcp")
    _, _, again, _ = make()
    with again:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"step-2: .*; step-1: .*Restore one"):
                again.load()
    assert steps(tmp_path / "state") == {"step-1", "step-2"}


def test_another_architecture_is_an_error_and_no_damage(make, tmp_path: Path) -> None:
    _, _, checkpointer, _ = make()
    with checkpointer:
        checkpointer.save(1, {})
    _, _, again, _ = make(width=7)
    with (
        again,
        pytest.raises(CheckpointError, match=r"0.weight of shape \(6, 4\), where the model has \(7, 4\)"),
    ):
        again.load()
    assert steps(tmp_path / "state") == {"step-1"}


@pytest.mark.parametrize("is_asynchronous", [True, False])
def test_a_full_disk_is_told_and_the_older_state_stays(make, tmp_path, monkeypatch, is_asynchronous) -> None:
    _, _, checkpointer, told = make(is_asynchronous=is_asynchronous)
    with checkpointer:
        checkpointer.save(1, {})
        checkpointer.wait()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("torch.distributed.checkpoint.filesystem.os.fsync", full)
        checkpointer.save(2, {})
        checkpointer.wait()
        monkeypatch.undo()
        assert checkpointer.failures == [(2, "No space left on device")]
        assert "update 2" in told[0]
        assert "free disk space" in told[0]
        assert steps(tmp_path / "state") == {"step-1"}
        checkpointer.save(3, {})
    assert steps(tmp_path / "state") == {"step-1", "step-3"}


def test_every_file_has_its_sum(make, tmp_path: Path) -> None:
    _, _, checkpointer, _ = make()
    with checkpointer:
        checkpointer.save(1, {})
    folder = tmp_path / "state" / "step-1"
    sums = json.loads((folder / "checksums.json").read_text())
    assert sums.keys() == {path.name for path in folder.iterdir()} - {"checksums.json"}
