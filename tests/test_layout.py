"""Tests mirror src: the tests of src/puna/rlhf/rewards.py are in tests/rlhf/test_rewards.py."""

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src" / "puna"

ASIDE = {"end_to_end"}
"""Folders whose tests run whole commands."""
WITHOUT_A_MODULE = {
    "conversion/test_llama_cpp.py": "another program reads what any writer wrote",
    "conversion/test_memory.py": "memory of every conversion",
    "conversion/test_smollm2.py": "a real model through the whole conversion",
    "supervised_finetuning/test_sampled_answers.py": "selection, encoding and the engine: the tokens that were sampled",
    "cli/test_machine.py": "every command that takes [machine]",
    "recipe/test_devices.py": "every stage of a run, by the models that it places",
    "training/test_pretended_device.py": "every training task and the engine on a fake device",
    "evaluation/text/test_measures.py": "positions, continuations and recall on the same rows",
    "inference/test_compile.py": "the engine, compiled and not",
    "inference/test_determinism.py": "a property of engine, cache and sampling together",
    "inference/test_requests.py": "what the engine does for each kind of request",
    "inference/test_written_down.py": "draws compared with values of a file",
    "model/test_transformers_parity.py": "the whole model against transformers",
    "reporting/test_cells.py": "every number of a report in its cell, over all sections",
    "tokenizer/test_exactness.py": "three tokenizers against each other",
    "training/parallel/test_accumulation.py": "a property of the loop with any cut of a batch",
    "training/parallel/test_layouts.py": "every layout against one process",
    "training/test_golden.py": "loss curves compared with files",
    "training/test_guards.py": "what the loop does when something fails on the way",
    "training/test_overfit.py": "the loop from loss to optimizer",
}
"""Tests of several modules at once, and what they are about."""
FILES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("test_*.py"))}
IN_PACKAGES = [name for name in FILES if "/" in name and name.split("/")[0] not in ASIDE]


def module_of(name: str) -> Path:
    path = Path(name)
    return SOURCE / path.parent / f"{path.stem.removeprefix('test_')}.py"


@pytest.mark.parametrize("name", IN_PACKAGES)
def test_every_test_stands_beside_its_module(name: str) -> None:
    assert module_of(name).is_file() != (name in WITHOUT_A_MODULE)


def test_the_exceptions_are_there() -> None:
    assert set(WITHOUT_A_MODULE) <= set(FILES)
