"""Instruction files as dialogs."""

import json
from pathlib import Path
from typing import Any

import pytest

from puna.core.conversations import Unusable
from puna.core.errors import ConfigError, DataError
from puna.core.progress import quiet
from puna.core.records import Dialog, read_records
from puna.supervised_finetuning.importers import (
    DialogImportConfig,
    DialogSourceConfig,
    import_dialogs,
    read_dialog,
)


def roles_and_texts(row: dict[str, Any], reader: str) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in read_dialog(row, reader)]


def test_alpaca_and_dolly_columns() -> None:
    expected = [("user", "Add.\n\n1, 2"), ("assistant", "3")]
    assert roles_and_texts({"instruction": "Add.", "input": "1, 2", "output": "3 "}, "alpaca") == expected
    assert roles_and_texts({"instruction": "Add.", "context": "1, 2", "response": "3"}, "alpaca") == expected


def test_conversations_keep_their_system_message() -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    expected = [("system", "Be kind."), ("user", "hi"), ("assistant", "hello")]
    assert roles_and_texts({"system": "Be kind.", "conversations": turns}, "sharegpt") == expected
    messages = [{"role": role, "content": text} for role, text in expected]
    assert roles_and_texts({"messages": messages}, "openai_messages") == expected


@pytest.mark.parametrize(
    ("row", "reader", "reason"),
    [
        ({"instruction": "Add.", "output": " "}, "alpaca", "empty_answer"),
        ({"instruction": "hi", "output": "I am {{name}}."}, "alpaca", "template_placeholder"),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "sharegpt", "turns_out_of_order"),
        ({"messages": []}, "openai_messages", "turns_out_of_order"),
        ({}, "sharegpt", "no_turns"),
    ],
)
def test_unusable_rows_say_why(row: dict[str, Any], reader: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read_dialog(row, reader)


def config(path: Path, **settings: Any) -> DialogImportConfig:
    return DialogImportConfig(
        sources=(DialogSourceConfig(name="toy", reader="alpaca", path=str(path)),), **settings
    )


def write_rows(path: Path, n: int) -> Path:
    rows = [{"instruction": f"say {number % 40}", "output": f"answer {number}"} for number in range(n)]
    path.write_text(json.dumps([*rows, rows[0], {"instruction": "say", "output": ""}]))
    return path


def test_import_accounts_for_every_row_and_splits_by_prompt(tmp_path: Path) -> None:
    (tmp_path / "SOURCE.txt").write_text("licence: CC0")
    path = write_rows(tmp_path / "rows.json", 200)
    manifest = import_dialogs(
        config(path, held_out_fraction=0.2), out=tmp_path / "out", seed=0, reporter=quiet()
    )
    assert manifest.kind == "dialogs"
    assert manifest.metrics["sources"]["toy"] == {
        "licence": "licence: CC0",
        "n_rows": 202,
        "n_kept": 200,
        "dropped": {"duplicate": 1, "empty_answer": 1},
    }
    train = list(read_records(tmp_path / "out" / "dialogs.jsonl", Dialog))
    held_out = list(read_records(tmp_path / "out" / "held_out.jsonl", Dialog))
    assert len(train) + len(held_out) == 200
    prompts = [{dialog.messages[0].content for dialog in part} for part in (train, held_out)]
    assert prompts[1]
    assert prompts[0].isdisjoint(prompts[1])


def test_long_dialogs_can_be_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.json", 120)
    manifest = import_dialogs(config(path, max_chars=15), out=tmp_path / "out", seed=0, reporter=quiet())
    assert manifest.metrics["sources"]["toy"]["dropped"]["too_long"] == 20


def test_missing_file_and_nothing_usable_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        import_dialogs(config(tmp_path / "absent.json"), out=tmp_path / "out", seed=0, reporter=quiet())
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DataError, match="at least one dialog"):
        import_dialogs(config(tmp_path / "empty.json"), out=tmp_path / "out", seed=0, reporter=quiet())


def test_a_changed_file_changes_the_artifact(tmp_path: Path) -> None:
    """Each of several: a fingerprint of the first one only would keep old dialogs."""
    paths = [write_rows(tmp_path / f"{name}.json", 30) for name in ("first", "second")]
    sources = [DialogSourceConfig(name=path.stem, reader="alpaca", path=str(path)) for path in paths]
    settings = DialogImportConfig(sources=tuple(sources))

    def imported():
        return import_dialogs(settings, out=tmp_path / "out", seed=0)

    before = imported()
    assert before.inputs.keys() == {"first", "second"}
    assert imported() == before
    for path in paths:
        write_rows(path, 31)
        after = imported()
        assert after.fingerprint != before.fingerprint, path.name
        before = after


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    sources = [
        DialogSourceConfig(name="toy", reader="alpaca", path=str(write_rows(tmp_path / name, 9)))
        for name in ("a.json", "b.json")
    ]
    with pytest.raises(ConfigError, match=r"a name of its own.*'toy' for .*a\.json and for .*b\.json"):
        import_dialogs(DialogImportConfig(sources=tuple(sources)), out=tmp_path / "out", seed=0)


@pytest.mark.real
def test_real_files_import(tmp_path: Path) -> None:
    files = {
        "alpaca": "alpaca_demo/alpaca_en_demo.json",
        "rasbt": "instructions_rasbt/instruction-data.json",
        "safety_alpaca": "safety_alpaca_dolly/alpaca_data_safety_only.json",
        "safety_dolly": "safety_alpaca_dolly/databricks-dolly-15k-safety-only.jsonl",
    }
    sources = tuple(
        DialogSourceConfig(name=name, reader="alpaca", path=f"PUNA_DATA/sft/{file}")
        for name, file in files.items()
    )
    manifest = import_dialogs(
        DialogImportConfig(sources=sources), out=tmp_path / "out", seed=0, reporter=quiet()
    )
    accounts = manifest.metrics["sources"]
    assert {name: account["n_rows"] for name, account in accounts.items()} == {
        "alpaca": 999,
        "rasbt": 1100,
        "safety_alpaca": 1904,
        "safety_dolly": 387,
    }
    assert all(account["n_kept"] > 0.98 * account["n_rows"] for account in accounts.values())
    assert all("licence" in account["licence"] for account in accounts.values())
