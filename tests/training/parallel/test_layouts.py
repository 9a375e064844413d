"""Every layout learns what one process learns, and goes on from the others' states."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from training.parallel import program
from training.parallel.launch import torchrun

ORIGINS = ("single", "fsdp", "tp", "hybrid")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process here; then all layouts from nothing, and each from the middle of every other, on two processes."""
    folder = tmp_path_factory.mktemp("layouts")
    torch.save(program.train(folder / "single"), folder / "single" / "tensors.pt")
    program.train(folder / "single_bf16", loop=program.LOW_LOOP)
    launch(folder, [*program.LAYOUTS, *program.LOW, *program.CHECKPOINTED])
    launch(folder, list(program.ON_FOUR), n=4)
    again = [f"{layout}-from-{origin}" for layout in ORIGINS[1:] for origin in ORIGINS if origin != layout]
    for name in [*again, *(f"single-from-{origin}" for origin in ORIGINS[1:])]:
        shutil.copytree(folder / name.split("-from-")[1], folder / name)
    launch(folder, again)
    for origin in ORIGINS[1:]:
        name = f"single-from-{origin}"
        torch.save(program.train(folder / name), folder / name / "tensors.pt")
    return folder


def launch(folder: Path, names: list[str], *, n: int = 2) -> None:
    process = torchrun(program.__file__, folder, json.dumps(names), n=n)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


@pytest.mark.parametrize("layout", [*program.LAYOUTS, *program.ON_FOUR])
def test_losses_are_those_of_one_process(runs: Path, layout: str) -> None:
    expected = program.losses(runs / "single")
    assert len(expected) == program.N_STEPS
    assert expected[-1] < 0.7 * expected[0]
    assert program.losses(runs / layout) == pytest.approx(expected, rel=1e-5)
    assert program.gradient_norms(runs / layout) == pytest.approx(
        program.gradient_norms(runs / "single"), rel=1e-4
    )
    held_out = program.losses(runs / "single", "validation")
    assert program.losses(runs / layout, "validation") == pytest.approx(held_out, rel=1e-5)


@pytest.mark.parametrize("layout", [*program.LAYOUTS, *program.ON_FOUR])
def test_gathered_tensors_are_those_of_one_process(runs: Path, layout: str) -> None:
    expected, ours = (
        torch.load(runs / name / "tensors.pt", weights_only=True) for name in ("single", layout)
    )
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("layout", ORIGINS)
def test_each_goes_on_from_the_state_of_each(runs: Path, layout: str, origin: str) -> None:
    if layout == origin:
        pytest.skip("resumption on the same layout has tests of its own")
    name = f"{layout}-from-{origin}"
    ours, expected = program.losses(runs / name), program.losses(runs / "single")
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours[: program.SAVED_STEP] == program.losses(runs / origin)[: program.SAVED_STEP], "it went on"


@pytest.mark.parametrize("name", program.CHECKPOINTED)
def test_activation_checkpointing_changes_no_bit_of_a_layout(runs: Path, name: str) -> None:
    layout = name.split("_")[0]
    assert program.losses(runs / name) == program.losses(runs / layout)
    assert program.gradient_norms(runs / name) == program.gradient_norms(runs / layout)


@pytest.mark.parametrize("layout", program.LOW)
def test_bfloat16_products_stay_near_one_process(runs: Path, layout: str) -> None:
    """Pieces and sums are float32; products round differently where matrices are cut."""
    assert program.losses(runs / layout) == pytest.approx(program.losses(runs / "single_bf16"), rel=0.02)
    assert program.losses(runs / layout) != program.losses(runs / "single")


@pytest.mark.parametrize(
    ("layout", "share"), [("fsdp", 0.51), ("tp", 0.53), ("hybrid", 1.0), ("fsdp_and_tp", 0.27)]
)
def test_no_process_holds_more_than_its_piece(runs: Path, layout: str, share: float) -> None:
    """Under tensor parallelism norm gains are whole everywhere; hybrid 2 x 1 is two copies."""
    n_parameters = json.loads((runs / "single" / "held-0.json").read_text())
    for rank in range(2):
        assert json.loads((runs / layout / f"held-{rank}.json").read_text()) <= share * n_parameters
