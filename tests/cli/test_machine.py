"""A recipe's [machine] reaches the process and the stages, and the command line's options lie over it."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from puna.cli import ablate, pretrain, run
from puna.core.errors import ConfigError
from puna.core.machine import Machine
from puna.recipe.pretraining import PretrainingRecipe
from puna.training.parallel import Ranks

ROOT = Path(__file__).parents[2]
MACHINE = """
[machine]
device = "cpu:0"
threads = 2
matmul_precision = "high"
speed = { checkpointing = "full" }
energy = { pue = 1.75 }
"""


@pytest.fixture(autouse=True)
def _torch_restored():
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


@pytest.fixture(params=["run", "ablate", "pretrain", "pretrain, two processes"])
def command(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a command's arguments, and what its work would have been given: machine, threads and precision."""
    seen: list[tuple[Machine, int, str]] = []

    def note(machine: Machine) -> None:
        seen.append((machine, torch.get_num_threads(), torch.get_float32_matmul_precision()))

    recipe = tmp_path / "mine.toml"
    name = request.param.partition(",")[0]
    base = {"run": "sandbox_cpu", "ablate": "ablations/sizes", "pretrain": "pretrain_cpu"}[name]
    text = (ROOT / "recipes" / f"{base}.toml").read_text(encoding="utf-8")
    recipe.write_text(text.replace('base = "', f'base = "{ROOT}/recipes/ablations/') + MACHINE)
    arguments: list[Any] = [name, recipe, "--out", tmp_path / "out"]
    if name == "pretrain":
        arguments += ["--data", tmp_path, "--tokenizer", tmp_path]
        _replace(monkeypatch, pretrain, "run_together", lambda *_, machine, **__: note(machine))
    elif name == "run":
        _replace(monkeypatch, run, "raise_llama", lambda recipe, **_: note(recipe.machine))
        _replace(monkeypatch, run, "quickstart_summary", lambda out: {"report": "", "chat_model": ""})
    else:
        _replace(monkeypatch, ablate, "run_ablation", lambda recipe, **_: note(recipe.machine))
    if "," in request.param:
        monkeypatch.setenv("WORLD_SIZE", "2")
        _replace(monkeypatch, pretrain, "torchrun", _Joined)
    return arguments, seen


def _replace(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: Any) -> None:
    assert hasattr(module, name)
    monkeypatch.setattr(module, name, value)


class _Joined(Ranks):
    """Processes that need not be there."""

    def __init__(self, config: Any, device: torch.device) -> None:
        assert device == torch.device("cpu", 0)

    def __enter__(self) -> "_Joined":
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing to leave."""


def test_the_recipes_machine_is_obeyed(say, command: Any) -> None:
    arguments, seen = command
    said = say(*arguments)
    [(machine, threads, precision)] = seen
    assert said.exit_code in (0, 1), said.stderr
    assert (machine.device, machine.threads, machine.matmul_precision) == ("cpu:0", 2, "high")
    assert (machine.speed.checkpointing, machine.energy.pue) == ("full", 1.75)
    assert (threads, precision) == (2, "high")


def test_options_lie_over_the_recipes_machine(say, command: Any) -> None:
    arguments, seen = command
    say(*arguments, "--threads", 1, "--set", 'machine.device="cuda:99"', "--device", "cpu:0")
    [(machine, threads, precision)] = seen
    assert (machine.device, machine.threads, machine.speed.checkpointing) == ("cpu:0", 1, "full")
    assert (threads, precision) == (1, "high")


def test_a_device_that_is_not_there_is_refused_first(say, command: Any) -> None:
    arguments, seen = command
    said = say(*arguments, "--device", "cuda:99")
    assert (said.exit_code, seen) == (2, [])
    assert "device: expected auto, cpu, cuda" in said.stderr


def test_of_many_processes_each_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def own(**machine: Any) -> Machine:
        return pretrain._as_one_of_many(PretrainingRecipe(machine=Machine(**machine))).machine

    assert (own().device, own(device="cuda").device) == ("cuda:1", "cuda:1")
    assert own(device="cpu").device == "cpu", "a GPU is not taken against the user's word"
    assert (own().threads, own(threads=3).threads) == (1, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="device"):
        _ = own().torch_device
