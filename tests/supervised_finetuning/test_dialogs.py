"""Dialogs become examples that learn answers only; what cannot be learned is counted, not hidden."""

from pathlib import Path

import pytest

from puna.core.errors import ConfigError, DataError
from puna.core.records import Dialog, Message, write_records
from puna.supervised_finetuning.dialogs import Examples, dialog_file, load_examples, tokenize_dialog
from puna.tokenizer.tokenizer import Tokenizer


def load(paths: list[Path], tokenizer: Tokenizer, **changes: object) -> Examples:
    settings = {"seq_len": 128, "repeats": (), "validation_fraction": 0.0, "seed": 0} | changes
    return load_examples(paths, tokenizer, **settings)


@pytest.fixture
def file(tmp_path: Path, dialogs: list[Dialog]) -> Path:
    write_records(tmp_path / "dialogs.jsonl", dialogs)
    return tmp_path / "dialogs.jsonl"


def learned_text(dialog: Dialog, tokenizer: Tokenizer) -> list[str]:
    example = tokenize_dialog(dialog, tokenizer)
    pieces, text = [], []
    for token, is_learned in zip(example.token_ids, example.loss_mask, strict=True):
        if is_learned:
            pieces.append(token)
            if token == tokenizer.eos_id:
                text.append(tokenizer.decode(pieces).strip())
                pieces = []
    assert not pieces, "every learned answer ends with </s>"
    return text


def test_answers_are_learned_and_prompts_are_not(dialogs, tokenizer) -> None:
    for dialog in (dialogs[0], dialogs[-1]):
        answers = [m.content for m in dialog.messages if m.role == "assistant"]
        assert learned_text(dialog, tokenizer) == answers


def test_ghost_attention_dialogs_learn_the_last_answer_only(dialogs, tokenizer) -> None:
    last = dialogs[-1].model_copy(update={"train_on": "last"})
    assert learned_text(last, tokenizer) == [dialogs[-1].messages[-1].content]


@pytest.mark.parametrize("name", ["dialogs.jsonl", "selected.jsonl"])
def test_a_folder_gives_its_dialogs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert dialog_file(tmp_path) == tmp_path / name


def test_a_folder_without_dialogs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dialogs.jsonl or selected.jsonl"):
        dialog_file(tmp_path)


def test_what_cannot_be_learned_is_dropped_and_counted(tmp_path, dialogs, tokenizer) -> None:
    long = Message(role="assistant", content="oats " * 200)
    tagged = Message(role="user", content="[INST] be bad")
    bad = [
        Dialog(id="long", messages=(dialogs[0].messages[0], long)),
        Dialog(id="tagged", messages=(tagged, dialogs[0].messages[1])),
        Dialog(id="unanswered", messages=dialogs[0].messages[:1]),
    ]
    write_records(tmp_path / "d.jsonl", [*bad, dialogs[0]])
    examples = load([tmp_path / "d.jsonl"], tokenizer)
    assert len(examples.train) == 1
    assert examples.dropped == {"too_long": 1, "special_tags": 1, "no_answer": 1}
    write_records(tmp_path / "d.jsonl", bad)
    with pytest.raises(DataError, match="got none, 1 dropped as too_long, 1 dropped as special_tags"):
        load([tmp_path / "d.jsonl"], tokenizer)


def test_a_broken_line_is_named(file, tokenizer) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:6], "{broken", *lines[7:]]))
    with pytest.raises(DataError, match=r"dialogs.jsonl, line 7"):
        load([file], tokenizer)


@pytest.mark.parametrize(("repeats", "expected"), [((2.0,), 160), ((0.5,), 40), ((1.25,), 100)])
def test_repeats_multiply_an_input(file, tokenizer, repeats, expected) -> None:
    examples = load([file], tokenizer, repeats=repeats)
    assert len(examples.train) == expected
    assert examples.train == load([file], tokenizer, repeats=repeats).train


def test_one_repeat_per_input_is_required(file, tokenizer) -> None:
    with pytest.raises(ConfigError, match="one number per input, 1"):
        load([file], tokenizer, repeats=(1.0, 2.0))


def test_equal_dialogs_are_never_on_both_sides(file, tokenizer) -> None:
    examples = load([file, file], tokenizer, validation_fraction=0.3, repeats=(1.0, 3.0))
    train = {tuple(e.token_ids) for e in examples.train}
    held_out = [tuple(e.token_ids) for e in examples.validation]
    assert not train & set(held_out)
    assert len(held_out) == len(set(held_out)), "each is measured once"
    assert 0.1 < len(held_out) / 80 < 0.5


def test_the_dialogs_held_out_are_written_down(tmp_path: Path, dialogs: list[Dialog], tokenizer) -> None:
    """Another draw would make validation losses of two versions incomparable, and it is not the draw over prompts."""
    write_records(tmp_path / "d.jsonl", dialogs[:60])
    examples = load([tmp_path / "d.jsonl"], tokenizer, validation_fraction=0.1)
    expected = [d for d in dialogs if d.id in ("0-15", "0-25", "0-27", "0-35", "0-38", "0-42")]
    assert examples.validation == [tokenize_dialog(dialog, tokenizer) for dialog in expected]
