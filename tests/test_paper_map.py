"""docs/paper_map.md names code that runs: each symbol exists, and a command reaches it; and no public code is idle."""

import re
from pathlib import Path

import pytest

from source_graph import has_symbol, imported_modules, is_reached, modules, reached_symbols

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "---" not in line
]
HEADINGS = (["file", "test", "status"], ["code"])
ENTRIES = [row for row in ROWS if len(row) == 4 and row[1:] not in HEADINGS]
SENTENCES = [row for row in ROWS if len(row) == 2 and row[1:] not in HEADINGS]
STATUSES = ("done", "stand-in", "shown", "our choice", "open")

NOT_REACHED: dict[tuple[str, str], str] = {
    (
        "puna.inference.quantize",
        "perplexity",
    ): "for Python users: docs/tutorials/inference.md, what 8 bits cost",
}
"""Public names that no command reaches, and why they stay."""


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def check_symbols(cell: str) -> None:
    for name in named(cell):
        path, _, symbol = name.partition("::")
        assert path.startswith("src/puna/"), name
        assert (ROOT / path).is_file(), name
        assert symbol, f"{name}: name the symbol too"
        assert has_symbol(path, symbol), f"{name}: no such symbol"
        assert is_reached(path, symbol), f"{name}: no command reaches it"


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: row[0][:60])
def test_every_row_names_code_that_runs_and_its_test(row: list[str]) -> None:
    _, files, tests, status = row
    assert status.startswith(STATUSES)
    assert bool(named(files)) != status.startswith("open")
    check_symbols(files)
    assert all(name.startswith("tests/") and (ROOT / name).is_file() for name in named(tests))


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row[0][:60])
def test_every_sentence_leads_to_one_symbol_that_runs(row: list[str]) -> None:
    assert len(named(row[1])) == 1
    check_symbols(row[1])


def test_every_line_of_a_table_is_a_row() -> None:
    assert len(SENTENCES) == 12
    assert len(ENTRIES) + len(SENTENCES) == len([row for row in ROWS if row[1:] not in HEADINGS])


def test_every_stage_is_on_the_map() -> None:
    named_folders = {Path(name).parts[2] for row in ENTRIES for name in named(row[1])}
    stages = {"pretraining_data", "pretraining", "supervised_finetuning", "human_feedback", "reward_modeling"}
    assert (
        stages | {"rlhf", "ghost_attention", "safety", "evaluation", "sandbox", "reporting", "planning"}
        <= named_folders
    )


def test_every_module_is_in_the_import_graph_of_the_command_line() -> None:
    assert set(modules()) - imported_modules() == {"puna.__main__"}


def test_every_public_name_is_reached_from_a_command() -> None:
    """A name that only its test uses is dead: use it, or delete it with its test."""
    reached = reached_symbols(frozenset(NOT_REACHED))
    idle = {
        (name, symbol)
        for name, module in modules().items()
        for symbol in module.exports
        if symbol in module.definitions and (name, symbol) not in reached
    }
    assert idle == set()


def test_no_private_code_is_idle() -> None:
    reached = reached_symbols(frozenset(NOT_REACHED))
    idle = {
        f"{name}.{symbol}"
        for name, module in modules().items()
        for symbol in set(module.definitions) - set(module.exports) - {"__all__", "__version__"}
        if (name, symbol) not in reached
    }
    assert idle == set()


def test_the_exceptions_are_real() -> None:
    """Whoever calls one of them takes it off the list."""
    assert set(NOT_REACHED) & reached_symbols() == set()
    assert all(symbol in modules()[name].definitions for name, symbol in NOT_REACHED)
