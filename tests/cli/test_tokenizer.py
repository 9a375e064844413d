"""`puna tokenizer` says what the tokenizer does."""

import io
import json
from pathlib import Path

import pytest

from puna.core.records import Message
from puna.tokenizer import Tokenizer, render_prompt

LINES = ["what color is the hen?", "", "  two  spaces", "é🦙 1234 <s>"]


def test_encode_gives_a_row_for_each_line(
    say, world: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(world["model"])
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in LINES)))
    said = say("tokenizer", "encode", "--tokenizer", world["model"], "--json")
    ids = json.loads(said.stdout)["ids"]
    assert ids == [tokenizer.encode(line) for line in LINES]
    assert [tokenizer.decode(row) for row in ids] == LINES


def test_encode_of_nothing_is_nothing(say, world: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = say("tokenizer", "encode", "--tokenizer", world["model"], "--json")
    assert json.loads(said.stdout) == {"ids": []}


def test_info_shows_the_chat_prompt_in_pieces(say, world: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(world["model"])
    arguments = ("--prompt", "moo?", "--system", "be kind.")
    said = say("tokenizer", "info", "--tokenizer", world["model"], *arguments, "--json")
    facts = json.loads(said.stdout)
    messages = [Message(role="system", content="be kind."), Message(role="user", content="moo?")]
    assert facts["ids"] == render_prompt(messages, tokenizer)
    assert facts["pieces"] == tokenizer.pieces(facts["ids"])
    assert facts["vocab_size"] == tokenizer.vocab_size


def test_a_folder_without_a_tokenizer_is_named(say, tmp_path: Path) -> None:
    said = say("tokenizer", "info", "--tokenizer", tmp_path)
    assert said.exit_code == 2
    assert "tokenizer.model" in said.stderr
