"""What users get wrong: one clear message, exit code 2, and nothing that existed is touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from end_to_end.imported_files import REAL, break_line, write_files
from end_to_end.program import TINY, Ended, Run, results, untouched
from puna.core.errors import CheckpointError
from puna.supervised_finetuning.config import FinetuningConfig
from puna.supervised_finetuning.stage import finetune

Call = Callable[..., Ended]
SANDBOX_RECIPE = Path(__file__).parents[2] / "recipes" / "sandbox_cpu.toml"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that PUNA_DATA names."""
    folder = write_files(tmp_path / "files")
    monkeypatch.setenv("PUNA_DATA", str(folder))
    return folder


@pytest.fixture
def sft(finished: Run) -> Path:
    return finished.folder / "sft"


# Recipes and options


def test_a_typo_in_a_recipe_names_the_nearest_key(call: Call, copy: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "typo.toml"
    recipe.write_text(f'base = "{SANDBOX_RECIPE}"\n[pretraining]\ntotal_tokns = 5\n')
    with untouched(copy):
        message = call("run", recipe, "--out", copy).complaint()
    assert str(recipe) in message
    assert "pretraining.total_tokns" in message
    assert "'total_tokens'" in message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("title = ", "valid TOML"),
        ("title = 'no origin'", "[sandbox] or a [real]"),
        ("[sandbox]\nn_documents = 'many'", "n_documents"),
        ("[sandbox]\nn_documents = 0", "n_documents"),
        ("[sandbox]\n[sft]\nn_epochs = nan", "n_epochs"),
        ("base = 'nowhere.toml'", "nowhere.toml"),
        (f"base = '{TINY}'", "base"),
    ],
)
def test_a_broken_recipe_is_named(call: Call, tmp_path: Path, text: str, hint: str) -> None:
    recipe = tmp_path / "broken.toml"
    recipe.write_text(text)
    assert hint in call("run", recipe, "--out", tmp_path / "run").complaint()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["nowhere.toml", "."])
def test_a_missing_recipe_is_named(call: Call, copy: Path, recipe: str) -> None:
    with untouched(copy):
        assert recipe in call("run", recipe, "--out", copy).complaint()


def test_an_unknown_name_lists_the_shipped_recipes(call: Call, tmp_path: Path) -> None:
    assert "sandbox_cpu" in call("run", "quickstrat", "--out", tmp_path / "run").complaint()


def test_an_unknown_override_names_the_nearest_key(call: Call, copy: Path) -> None:
    with untouched(copy):
        message = call("run", TINY, "--out", copy, "--set", "sft.n_epoch=3").complaint()
    assert "--set" in message
    assert "'n_epochs'" in message


@pytest.mark.parametrize("override", ["sft", "sft.n_epochs=-1", "sft.n_epochs.x=1", "=1", "sft.loop=4"])
def test_a_broken_override_is_named(call: Call, copy: Path, override: str) -> None:
    with untouched(copy):
        assert "--set" in call("run", TINY, "--out", copy, "--set", override).complaint()


def test_an_unknown_stage_lists_the_known_ones(call: Call, copy: Path) -> None:
    with untouched(copy):
        message = call("run", TINY, "--out", copy, "--until", "sftt").complaint()
    assert "sftt" in message
    assert "rlhf-v1" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["quickstrat"],
        ["run", str(TINY), "--frob"],
        ["run", str(TINY), "--seed", "-1"],
        ["run", str(TINY), "--seed", "x"],
        ["run", str(TINY), "--threads", "0"],
        ["run"],
        ["generate", "folder", "--temperature", "-1"],
        ["generate", "folder", "--top-p", "1.5"],
        ["generate", "folder", "--n", "0"],
        ["tokenizer", "decode"],
    ],
)
def test_unknown_commands_and_options_are_refused(call: Call, arguments: list[str]) -> None:
    ended = call(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert ended.stderr.count("Error") == 1
    assert "Traceback" not in ended.stderr


# Input files


def test_a_data_folder_that_is_not_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUNA_DATA", raising=False)
    message = call("run", REAL, "--out", tmp_path / "run").complaint()
    assert "PUNA_DATA" in message
    assert "export" in message


def test_a_data_folder_that_is_not_there(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNA_DATA", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in call("run", REAL, "--out", tmp_path / "run").complaint()


@pytest.mark.parametrize("name", ["pages/pages.jsonl", "instructions.json", "graded.json", "harmless.jsonl"])
def test_a_missing_input_file_is_named(call: Call, tmp_path: Path, data: Path, name: str) -> None:
    (data / name).unlink()
    with untouched(data):
        message = call("run", REAL, "--out", tmp_path / "run", "--until", "data").complaint()
    assert Path(name).name.split(".")[0] in message


@pytest.mark.parametrize("name", ["pages/pages.jsonl", "harmless.jsonl"])
def test_a_broken_line_7_is_named(call: Call, tmp_path: Path, data: Path, name: str) -> None:
    file = break_line(data / name, 7)
    with untouched(tmp_path):
        message = call("run", REAL, "--out", tmp_path / "run", "--until", "data").complaint()
    assert f"{file}, line 7" in message


def test_a_broken_line_7_of_prompts_is_named(call: Call, finished: Run, sft: Path, tmp_path: Path) -> None:
    file = tmp_path / "held_out.jsonl"
    shutil.copy(finished.folder / "sandbox" / "prompts" / "held_out.jsonl", file)
    break_line(file, 7)
    with untouched(finished.folder):
        assert f"{file}, line 7" in call("generate", sft, "--prompts", file).complaint()


@pytest.mark.parametrize("name", ["samples/v1/samples.jsonl", "preferences/batch-1/test.jsonl"])
def test_a_broken_line_7_to_score_is_named(call: Call, finished: Run, tmp_path: Path, name: str) -> None:
    file = shutil.copy(finished.folder / name, tmp_path / "data.jsonl")
    break_line(file, 7)
    with untouched(finished.folder):
        model = finished.folder / "reward" / "safety-1"
        assert f"{file}, line 7" in call("reward", "score", model, "--data", file).complaint()


@pytest.mark.parametrize("text", ["", "\n\n", '{"text": ""}\n{"text": "  "}\n'])
def test_an_empty_corpus_is_refused(call: Call, tmp_path: Path, data: Path, text: str) -> None:
    (data / "pages" / "pages.jsonl").write_text(text)
    for note in (data / "notes").iterdir():
        note.write_text("")
    message = call("run", REAL, "--out", tmp_path / "run", "--until", "tokenizer").complaint()
    assert "page" in message


def test_a_folder_without_files_is_named(call: Call, tmp_path: Path, data: Path) -> None:
    shutil.rmtree(data / "notes")
    (data / "notes").mkdir()
    message = call("run", REAL, "--out", tmp_path / "run", "--until", "data").complaint()
    assert str(data / "notes") in message


def test_a_corpus_that_no_filter_lets_through_names_the_filter(
    call: Call, tmp_path: Path, data: Path
) -> None:
    changes = ("--set", "data.filters.quality.min_words=100000", "--until", "data")
    message = call("run", REAL, "--out", tmp_path / "run", *changes).complaint()
    assert "min_words" in message or "low_quality" in message


# Models and prompts


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_model_is_named(call: Call, copy: Path, keep: float) -> None:
    weights = copy / "sft" / "model.safetensors"
    os.truncate(weights, int(weights.stat().st_size * keep))
    with untouched(copy):
        for command in (["generate", "--prompt", "hello"], ["chat"], ["lineage", "--verify"]):
            assert "model.safetensors" in call(*command, copy / "sft").complaint()


def test_a_truncated_reward_model_is_named(call: Call, copy: Path) -> None:
    model = copy / "reward" / "safety-1"
    os.truncate(model / "model.safetensors", 1000)
    with untouched(copy):
        pairs = copy / "preferences" / "batch-1" / "test.jsonl"
        assert "model.safetensors" in call("reward", "score", model, "--data", pairs).complaint()


def test_a_stage_refuses_a_truncated_model(copy: Path, tmp_path: Path) -> None:
    os.truncate(copy / "pretrained" / "model.safetensors", 1000)
    with untouched(copy), pytest.raises(CheckpointError, match=r"model\.safetensors"):
        finetune(
            FinetuningConfig(),
            base_model=copy / "pretrained",
            dialogs=[copy / "sandbox" / "dialogs.jsonl"],
            out=tmp_path / "sft",
            seed=0,
        )
    assert not (tmp_path / "sft").exists()


def test_a_run_makes_a_truncated_model_of_its_own_again(call: Call, copy: Path, finished: Run) -> None:
    """Its recipe is at hand, so nothing is lost: the same bits come back, and nothing after them is done anew."""
    os.truncate(copy / "pretrained" / "model.safetensors", 1000)
    ended = call("run", TINY, "--out", copy, "--until", "sft")
    assert ended.exit_code == 0, ended.stderr
    assert "] model pretrained" in ended.stderr
    assert "] model sft" not in ended.stderr
    assert results(copy) == results(finished.folder)


def test_bytes_that_changed_silently_are_found(call: Call, copy: Path) -> None:
    """Of the same size: only the checksum knows."""
    weights = copy / "sft" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert "model.safetensors" in call("lineage", copy / "sft", "--verify").complaint()


@pytest.mark.parametrize(
    ("folder", "hint"),
    [
        ("nowhere", "nowhere"),
        ("data", "config.json"),
        ("reward/safety-1", "LlamaForCausalLM"),
        (".", "config.json"),
    ],
)
def test_a_folder_that_is_no_chat_model_is_named(call: Call, finished: Run, folder: str, hint: str) -> None:
    with untouched(finished.folder):
        assert hint in call("generate", finished.folder / folder, "--prompt", "hello").complaint()


def test_a_chat_model_scores_nothing(call: Call, finished: Run, sft: Path) -> None:
    pairs = finished.folder / "preferences" / "batch-1" / "test.jsonl"
    assert "LlamaForSequenceClassification" in call("reward", "score", sft, "--data", pairs).complaint()


@pytest.mark.parametrize("options", [[], ["--chat"]])
def test_a_prompt_longer_than_the_context_says_the_limit(call: Call, sft: Path, options: list[str]) -> None:
    message = call("generate", sft, "--prompt", "the goat eats grass. " * 400, *options).complaint()
    assert "512" in message
    assert "Shorten" in message


@pytest.mark.parametrize("options", [[], ["--prompt", "x", "--prompts", "y.jsonl"]])
def test_generate_needs_exactly_one_kind_of_prompt(call: Call, sft: Path, options: list[str]) -> None:
    assert "--prompts" in call("generate", sft, *options).complaint()


@pytest.mark.parametrize("option", ["--top-p=0", "--temperature=inf", "--max-new-tokens=-3"])
def test_sampling_out_of_range_is_refused(call: Call, sft: Path, option: str) -> None:
    ended = call("generate", sft, "--prompt", "x", option)
    assert ended.exit_code == 2
    assert option.partition("=")[0] in ended.stderr
    assert "Traceback" not in ended.stderr


def test_text_that_is_no_text_is_refused(
    call: Call, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads standard input strictly or not by the locale; the message is the same."""
    (tmp_path / "typed").write_bytes(b"fine\n\xff\xfe broken\n")
    for command in (["tokenizer", "encode", "--tokenizer"], ["chat"]):
        with (tmp_path / "typed").open(encoding="utf-8", errors="strict") as typed:
            monkeypatch.setattr("sys.stdin", typed)
            ended = call(*command, finished.folder / "sft")
        assert ended.exit_code == 2
        assert ended.stderr.count("puna: ") == 1
        assert "Unicode" in ended.stderr


@pytest.mark.parametrize("command", ["lineage", "report"])
def test_a_folder_that_is_no_run_is_named(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with untouched(tmp_path):
        assert str(tmp_path) in call(command, tmp_path).complaint()
        assert str(tmp_path / "nowhere") in call(command, tmp_path / "nowhere").complaint()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
