"""`puna pretrain`: one JSON object at the end, every mistake a message, and preemption ends well."""

import json
import signal
import time
from pathlib import Path

import pytest

from end_to_end.program import finish, start
from pretraining.folders import write_recipe, write_shards, write_tokenizer
from puna.cli import pretrain
from puna.cli.main import main
from puna.core.config import load_recipe, resolve
from puna.model.config import PRESETS
from puna.recipe.pretraining import PretrainingRecipe
from puna.recipe.settings import builtin_recipe

TABLE_1 = {"7b": 3.0e-4, "13b": 3.0e-4, "34b": 1.5e-4, "70b": 1.5e-4}
"""Peak learning rates."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_tokenizer(folder / "tokenizer")
    write_shards(folder / "tokens", folder / "tokenizer")
    write_recipe(folder / "tiny.toml")
    return folder


def arguments(inputs: Path, out: Path, *more: object) -> list[str]:
    given = ["pretrain", inputs / "tiny.toml", "--data", inputs / "tokens"]
    return [
        str(a) for a in (*given, "--tokenizer", inputs / "tokenizer", "--out", out, "--threads", 1, *more)
    ]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_it_ends_with_the_result(inputs: Path, tmp_path: Path, capsys) -> None:
    code, out, err = call(capsys, *arguments(inputs, tmp_path / "model", "--json"))
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result.keys() == {"artifact", "metrics", "wall_seconds", "peak_rss_bytes"}
    assert result["artifact"] == str(tmp_path / "model")
    assert result["metrics"]["steps"] == 30
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert {path.name for path in (tmp_path / "model.states").iterdir()} == {"step-20"}, "the permanent one"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "pretraining.seq_len=65"], "context of 64 tokens"),
        (["--set", "pretraining.model.vocab_size=301"], "the tokenizer's 300"),
        (["--set", "parallel.tp=2"], "the 1 processes that were started"),
        (["--set", "pretraining.loop.warmup_steps=31"], "warmup_steps"),
        (["--set", "pretraining.lop.warmup_steps=3"], "Did you mean 'loop'"),
        (["--data", "/nonexistent"], "/nonexistent: expected an existing file or folder"),
        (["--tokenizer", "/nonexistent"], "/nonexistent"),
    ],
)
def test_mistakes_are_messages(inputs: Path, tmp_path: Path, capsys, more: list[str], message: str) -> None:
    code, out, err = call(capsys, *arguments(inputs, tmp_path / "model", *more))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "model").exists()


def test_sigterm_exits_0_and_the_same_command_goes_on(inputs: Path, tmp_path: Path, capsys) -> None:
    longer = ("--set", "pretraining.loop.total_steps=300", "--json")
    process = start(*arguments(inputs, tmp_path / "model", *longer))
    state = tmp_path / ".model.partial" / "state"
    deadline = time.monotonic() + 240
    while not list(state.glob("step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout == ""
    assert "stopped by SIGTERM after update" in ended.stderr
    assert "same command" in ended.stderr
    stopped_at = max(int(path.name.removeprefix("step-")) for path in state.glob("step-*"))
    assert f"after update {stopped_at} of 300" in ended.stderr
    code, out, err = call(capsys, *arguments(inputs, tmp_path / "model", *longer))
    assert code == 0, err
    assert "continuing the interrupted build" in err
    assert json.loads(out)["metrics"]["steps"] == 300


SUITE = (
    "evaluation_hooks={every_steps = 20, text = {n_tokens = 16, position_edges = [8], recall_distances = [4], "
    "passage_tokens = 5, continuation_tokens = 4, max_documents = 4, n_passages = 4}}"
)


def test_the_recipes_suite_runs_on_the_way_and_leaves_the_model_as_it_is(
    inputs: Path, tmp_path: Path, capsys
) -> None:
    code, _, err = call(capsys, *arguments(inputs, tmp_path / "plain"))
    assert code == 0, err
    code, out, err = call(capsys, *arguments(inputs, tmp_path / "model", "--json", "--set", SUITE))
    assert code == 0, err
    assert json.loads(out)["metrics"]["suites"]["text"].keys() >= {"perplexity/1-8", "recall/4"}
    rows = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "text"] == [20, 30]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "model")]
    assert weights[0] == weights[1]


def test_a_suite_under_torchrun_is_refused(inputs: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(pretrain, "is_torchrun", lambda: True)
    code, _, err = call(capsys, *arguments(inputs, tmp_path / "model", "--set", SUITE))
    assert code == 2
    assert "evaluation_hooks: expected a training on one process, got torchrun" in err


@pytest.mark.parametrize("size", TABLE_1)
def test_presets_hold_the_papers_numbers(size: str) -> None:
    recipe = load_recipe(builtin_recipe(f"llama2_{size}"), PretrainingRecipe)
    settings, loop = recipe.pretraining, recipe.pretraining.loop_for()
    assert settings.model == size
    assert loop.optimizer.peak_lr == TABLE_1[size]
    assert settings.seq_len == 4096
    assert settings.total_tokens == 2_000_000_000_000
    assert loop.batch_size * settings.seq_len == 4 * 2**20
    optimizer = loop.optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.9, 0.95, 1e-5)
    assert (optimizer.weight_decay, optimizer.max_grad_norm) == (0.1, 1.0)
    assert (loop.warmup_steps, loop.schedule, loop.final_lr_fraction) == (2000, "cosine", 0.1)
    assert loop.lr(loop.n_steps - 1) == pytest.approx(TABLE_1[size] / 10)
    recipe.parallel.check_model(PRESETS[size])
    for n_nodes in (1, 2, 32):
        layout = recipe.parallel.layout(8 * n_nodes)
        recipe.parallel.check_loop(loop, layout)
    assert PretrainingRecipe.model_validate(resolve(recipe)) == recipe


def test_the_cpu_preset_is_of_the_size_that_it_says() -> None:
    recipe = load_recipe(builtin_recipe("pretrain_cpu"), PretrainingRecipe)
    assert recipe.pretraining.model_config_for(4096).dim == 256
    assert recipe.pretraining.loop_for().n_steps > recipe.pretraining.loop.warmup_steps
