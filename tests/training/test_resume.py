"""Training state: bit-equal on return, whole or absent on disk, and cheap."""

import errno
import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from puna.core.errors import CheckpointError
from puna.training.optimizer import OptimizerConfig, make_optimizer
from puna.training.resume import load_state, save_state


def trained(seed: int, width: int = 6) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module with an optimizer that has moments."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 2))
    optimizer = make_optimizer(model, OptimizerConfig())
    for _ in range(3):
        update(model, optimizer)
    return model, optimizer


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_a_resumed_model_makes_the_same_updates(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_state(tmp_path, model=model, optimizer=optimizer, step=3)
    for _ in range(3):
        update(model, optimizer)
    other, other_optimizer = trained(1)
    resumed = load_state(tmp_path, model=other, optimizer=other_optimizer)
    assert resumed is not None
    assert resumed.step == 3
    for _ in range(3):  # the generator's state came back too: the same random inputs
        update(other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))


def test_a_fresh_optimizer_takes_the_moments(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_state(tmp_path, model=model, optimizer=optimizer, step=3)
    other = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    fresh = make_optimizer(other, OptimizerConfig())
    load_state(tmp_path, model=other, optimizer=fresh)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert all(torch.equal(optimizer.state[a][slot], fresh.state[b][slot]) for slot in optimizer.state[a])


def test_extra_values_and_tensors_come_back_with_the_same_bits(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    extra = {"loss": math.pi * 1e-7, "names": ["a"], "none": None}
    tensors = {"rollout": torch.randn(3, 2), "mask": torch.tensor([True, False]), "ids": torch.arange(4)}
    save_state(tmp_path, model=model, optimizer=optimizer, step=1, extra=extra, tensors=tensors)
    resumed = load_state(tmp_path, model=model, optimizer=optimizer)
    assert resumed is not None
    assert resumed.extra == extra
    assert resumed.tensors.keys() == tensors.keys()
    assert all(torch.equal(resumed.tensors[name], tensors[name]) for name in tensors)


def test_no_state_is_none(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    assert load_state(tmp_path / "absent", model=model, optimizer=optimizer) is None


def test_only_the_latest_state_is_kept(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for step in (9, 10):
        save_state(tmp_path, model=model, optimizer=optimizer, step=step)
    assert [path.name for path in tmp_path.iterdir()] == ["step-10"]


def test_leftovers_of_a_kill_do_not_disturb(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    (tmp_path / ".step-7.partial").mkdir(parents=True)
    (tmp_path / ".step-7.partial" / "__0_0.distcp").write_bytes(b"half")
    save_state(tmp_path, model=model, optimizer=optimizer, step=5)
    resumed = load_state(tmp_path, model=model, optimizer=optimizer)
    assert resumed is not None
    assert resumed.step == 5
    save_state(tmp_path, model=model, optimizer=optimizer, step=7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-7"]


def test_between_renaming_and_removing_the_newer_state_counts(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_state(tmp_path, model=model, optimizer=optimizer, step=9)
    (tmp_path / "step-9").rename(tmp_path / "aside")
    save_state(tmp_path, model=model, optimizer=optimizer, step=10)
    (tmp_path / "aside").rename(tmp_path / "step-9")
    resumed = load_state(tmp_path, model=model, optimizer=optimizer)
    assert resumed is not None
    assert resumed.step == 10


def test_another_models_state_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, model=trained(0)[0], optimizer=trained(0)[1], step=1)
    model, optimizer = trained(0, width=7)
    with pytest.raises(CheckpointError, match="step-1"):
        load_state(tmp_path, model=model, optimizer=optimizer)


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_state_is_refused(tmp_path: Path, file: str, damage: str) -> None:
    model, optimizer = trained(0)
    save_state(tmp_path, model=model, optimizer=optimizer, step=1)
    path = tmp_path / "step-1" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="step-1"):
        load_state(tmp_path, model=model, optimizer=optimizer)


def test_a_full_disk_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(0)
    save_state(tmp_path, model=model, optimizer=optimizer, step=1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path, model=model, optimizer=optimizer, step=2)
    monkeypatch.undo()
    resumed = load_state(tmp_path, model=model, optimizer=optimizer)
    assert resumed is not None
    assert resumed.step == 1


def test_a_state_is_three_numbers_a_parameter_in_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weight and two moments, in float32; more layers are more bytes, not more files or waits for the disk."""
    n_syncs: list[int] = []
    sync = os.fsync

    def count(number: int) -> None:
        n_syncs[-1] += 1
        sync(number)

    monkeypatch.setattr(os, "fsync", count)
    n_files = []
    for n_layers in (2, 40):
        model = nn.ModuleList(nn.Linear(160, 160, bias=False) for _ in range(n_layers))
        optimizer = make_optimizer(model, OptimizerConfig())
        sum(layer.weight.square().sum() for layer in model).backward()
        optimizer.step()
        n_syncs.append(0)
        save_state(tmp_path / str(n_layers), model=model, optimizer=optimizer, step=1)
        files = [path for path in (tmp_path / str(n_layers)).rglob("*") if path.is_file()]
        n_files.append(len(files))
        n_bytes = sum(path.stat().st_size for path in files)
        n_needed = 3 * 4 * n_layers * 160 * 160
        assert n_needed <= n_bytes < 1.1 * n_needed + 50_000
    assert n_files[0] == n_files[1] <= 5
    assert n_syncs[0] == n_syncs[1] <= 10
