"""The whole recipe on imported files: no oracle; reward models judge, and every input is accounted for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from end_to_end.imported_files import REAL, write_files
from end_to_end.program import Ended, Run, artifacts, puna
from puna.core.artifacts import read_manifest
from puna.core.records import Prompt, read_records

INPUTS = {"pages": 120, "notes": None, "instructions": 60, "graded": 60, "harmless": 60}
"""Every input that real.toml names, and its rows where the files fix them."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("real")
    data = write_files(folder / "files")
    ended = puna("run", REAL, "--out", folder / "run", "--json", environment={"PUNA_DATA": str(data)})
    return Run(folder / "run", ended)


def metrics(run: Run, name: str) -> dict[str, Any]:
    return read_manifest(run.folder / name).metrics


def test_it_ends_in_a_report_and_a_model_that_chats(imported: Run, call: Callable[..., Ended]) -> None:
    assert imported.ended.exit_code == 0, imported.ended.stderr
    assert len(imported.ended.stdout.splitlines()) == 1
    summary = imported.ended.result
    assert Path(summary["report"]).is_file()
    model = summary["chat_model"]
    ended = call("generate", model, "--chat", "--prompt", "what does the goat eat?", "--max-new-tokens", 4)
    assert ended.exit_code == 0, ended.stderr


def test_the_report_accounts_for_every_input(imported: Run) -> None:
    page = (imported.folder / "report" / "report.md").read_text(encoding="utf-8")
    html = (imported.folder / "report" / "index.html").read_text(encoding="utf-8")
    for name, n_rows in INPUTS.items():
        rows = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
        assert rows, f"{name} is not in the report"
        assert n_rows is None or any(f"{n_rows}" in row for row in rows), rows
        assert name in html
    assert "CC0, written for a test" in page
    assert "not stated: no SOURCE.txt beside the data" in page


def test_there_is_no_oracle(imported: Run) -> None:
    """What only ground truth can tell is absent rather than made up."""
    for version in imported.ended.result["versions"]:
        assert version["helpfulness"] is None
        assert version["violation_rate"] is None
    assert "sandbox" not in {path.name for path in artifacts(imported.folder)}


def test_reward_models_are_measured_on_held_out_pairs(imported: Run) -> None:
    for model in imported.ended.result["reward_models"]:
        assert 0 <= model["accuracy"] <= 1
        rows = (imported.folder / "reward" / f"{model['role']}-1" / "held_out_scores.jsonl").read_text()
        test = (imported.folder / "preferences" / "test.jsonl").read_text()
        assert {json.loads(row)["id"] for row in rows.splitlines()} <= {
            json.loads(row)["id"] for row in test.splitlines()
        }


def test_versions_are_compared_by_reward_model(imported: Run) -> None:
    found = metrics(imported, "evaluation/rlhf-v1")
    assert {"rm_helpfulness", "rm_safety"} <= set(found)
    assert any("win_rate" in name for name in found)


def test_perplexity_is_told_by_source(imported: Run) -> None:
    text = json.dumps(metrics(imported, "pretrained")["validation"])
    assert "pages" in text
    assert "notes" in text


def test_held_out_prompts_are_in_no_training_file(imported: Run) -> None:
    sets = imported.folder / "prompts" / "prompts"
    held_out = {prompt.messages for prompt in read_records(sets / "held_out.jsonl", Prompt)}
    assert held_out
    for path in sets.glob("*.jsonl"):
        if path.stem != "held_out":
            assert not held_out & {prompt.messages for prompt in read_records(path, Prompt)}
