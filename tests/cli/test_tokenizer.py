"""`puna tokenizer` says what the tokenizer does."""

import io
import json
from pathlib import Path

import pytest

from imported_tokenizers import CHATML, byte_level_bpe, write_model_folder
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


def test_train_makes_a_tokenizer_of_files(say, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the llama eats 12 apples\n" * 60, encoding="utf-8")
    rows = [
        json.dumps({"id": str(n), "text": f"the goat\neats {n} leaves", "source": "x"}) for n in range(60)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    said = say(
        "tokenizer", "train", "--data", tmp_path / "a.txt", tmp_path / "b.jsonl", "--vocab-size", 300, "--out", out,
        "--json",
    )  # fmt: skip
    assert said.exit_code == 0, said.stderr
    result = json.loads(said.stdout.splitlines()[-1])
    assert result["artifact"] == str(out)
    assert result["metrics"]["vocab_size"] == 300
    assert result["metrics"]["n_bytes"] == 60 * 24 + sum(len(json.loads(row)["text"]) for row in rows)
    assert {"wall_seconds", "peak_rss_bytes"} <= set(result)
    assert {"tokenizer.model", "tokenizer.json", "manifest.json"} <= {path.name for path in out.iterdir()}
    tokenizer = Tokenizer.load(out)
    assert len(tokenizer.encode("goat llama")) < 6


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--data", "absent.txt", "--vocab-size", 300), "absent.txt"),
        (("--data", "{text}", "--vocab-size", 3), "--vocab-size"),
        (("--data", "{text}", "--vocab-size", 9000), "Set vocab_size to"),
        (("--data", "{latin}", "--vocab-size", 300), "UTF-8"),
        (("--data", "{broken}", "--vocab-size", 300), "line 1"),
    ],
)
def test_train_says_what_is_wrong(say, tmp_path: Path, arguments: tuple[object, ...], problem: str) -> None:
    files = {
        "text": tmp_path / "text.txt",
        "latin": tmp_path / "latin.txt",
        "broken": tmp_path / "broken.jsonl",
    }
    files["text"].write_text("the llama eats\n" * 9)
    files["latin"].write_bytes("café".encode("latin-1"))
    files["broken"].write_text('{"id": 1}')
    given = [str(argument).format(**files) for argument in arguments]
    said = say("tokenizer", "train", *given, "--out", tmp_path / "out")
    assert said.exit_code == 2
    assert problem in said.stderr
    assert "Traceback" not in said.stderr


def test_info_shows_an_imported_models_own_format(say, tmp_path: Path) -> None:
    text = ["system user assistant <|im_start|> Hello!"] * 20
    folder = write_model_folder(tmp_path, byte_level_bpe(text), template=CHATML, eos_token="<|im_end|>")
    arguments = (
        "tokenizer",
        "info",
        "--tokenizer",
        folder,
        "--system",
        "Be kind.",
        "--prompt",
        "Hi <|im_end|>",
    )
    facts = json.loads(say(*arguments, "--json").stdout)
    assert facts["pieces"][0] == "<|im_start|>"
    assert facts["pieces"].count("<|im_end|>") == 2
    assert facts["stop_ids"] == [facts["eos_id"]]
    shown = say(*arguments).stdout
    assert "<|im_start|>|" in shown
    assert "chat format: the model's own template" in shown
    assert f"{len(facts['ids'])} tokens" in shown


def test_info_names_a_refused_prompt(say, world: dict[str, Path]) -> None:
    said = say("tokenizer", "info", "--tokenizer", world["model"], "--prompt", "a [INST] b", "--json")
    assert json.loads(said.stdout)["refusal"] == "special_tags"
