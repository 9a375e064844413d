"""Every stage's command: options from its declaration, an artifact and one JSON object, one message for bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Said
from puna.cli.stage_commands import GROUPS, TOP
from puna.cli.stages import StageCommand
from puna.core.manifest import read_manifest
from puna.core.records import Comparison, Dialog, Message, Prompt, Side, write_records

Say = Callable[..., Said]
ASK = (Message(role="user", content="what does the cow eat?"),)
COMMANDS: list[tuple[tuple[str, ...], StageCommand]] = [
    *(((command.name,), command) for command in TOP),
    *(((group, command.name), command) for group, (_, commands) in GROUPS.items() for command in commands),
]
SAMPLING = ("--set", "sampling.max_new_tokens=8")
TRAINING = ("--set", "loop.batch_size=2", "--set", "loop.micro_batch_size=2", "--set", "loop.total_steps=2",
            "--set", "loop.warmup_steps=1")  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dialogs, pairs, prompts and constraint dialogs."""
    folder = tmp_path_factory.mktemp("files")
    answer = Message(role="assistant", content="grass.")
    dialogs = [Dialog(id=str(i), messages=(*ASK, answer)) for i in range(8)]
    pairs = [
        Comparison(
            id=str(i),
            prompt=(Message(role="user", content=f"what does cow {i} eat?"),),
            chosen=Side(response="grass."),
            rejected=Side(response=f"{i} stones."),
            rating="better",
        )
        for i in range(8)
    ]
    prompts = [Prompt(id=str(i), messages=ASK) for i in range(4)]
    meta = {"instruction": "say moo.", "short_instruction": "moo", "turns": ["hello.", "bye."]}
    constraints = [Prompt(id=str(i), messages=ASK, meta=meta) for i in range(2)]
    made = {"dialogs": dialogs, "pairs": pairs, "prompts": prompts, "constraints": constraints}
    for name, records in made.items():
        write_records(folder / f"{name}.jsonl", records)
    return {name: folder / f"{name}.jsonl" for name in made}


def rewards(world: dict[str, Path]) -> tuple[object, ...]:
    return ("--helpfulness", world["helpfulness"], "--safety", world["safety"])


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_help_shows_the_example_and_every_option_of_the_declaration(
    say: Say, words: tuple[str, ...], command: StageCommand
) -> None:
    said = say(*words, "--help")
    assert said.exit_code == 0
    text = " ".join(said.stdout.replace("│", " ").split())
    assert " ".join(command.example.split()[:4]) in text
    assert command.example.startswith(" ".join(["puna", *words]))
    for parameter in command.stage.parameters:
        flag = "--" + command.options.get(parameter.name, parameter.name).replace("_", "-")
        is_option = parameter.role in ("input", "inputs", "choice") and parameter.name not in command.fixed
        assert (flag in text) == is_option or parameter.role == "inputs_by_name", flag


def test_sft_then_a_reward_model(
    say: Say, world: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    sft = tmp_path / "sft"
    said = say("sft", "--model", world["model"], "--data", files["dialogs"], "--out", sft, "--set", "seq_len=64",
               *TRAINING, "--json")  # fmt: skip
    assert said.exit_code == 0, said.stderr
    result = json.loads(said.stdout)
    assert set(result) == {"artifact", "metrics", "wall_seconds", "peak_rss_bytes"}
    assert result["metrics"]["steps"] == 2
    assert read_manifest(sft).config["seq_len"] == 64
    again = say("sft", "--model", world["model"], "--data", files["dialogs"], "--out", sft, "--set", "seq_len=64",
                *TRAINING, "--threads", 1)  # fmt: skip
    assert "unchanged, skipped" in again.stderr
    reward = tmp_path / "rm"
    said = say("reward", "train", "--model", sft, "--data", files["pairs"], "--role", "helpfulness", "--out", reward,
               *TRAINING)  # fmt: skip
    assert said.exit_code == 0, said.stderr
    assert read_manifest(reward).labels["role"] == "helpfulness"


def test_rlhf(say: Say, world: dict[str, Path], files: dict[str, Path], tmp_path: Path) -> None:
    common = ("--prompts", files["prompts"], *rewards(world), "--set", "max_new_tokens=8")
    said = say(
        "rlhf", "sample", "--model", world["model"], *common, "--out", tmp_path / "samples", "--seed", 3
    )
    assert said.exit_code == 0, said.stderr
    assert read_manifest(tmp_path / "samples").seed == 3
    said = say("rlhf", "ppo", "--model", world["model"], "--held-out", files["prompts"], *common, "--out",
               tmp_path / "ppo", "--set", "max_iterations=1", "--set", "batch_size=4", "--set",
               "mini_batch_size=4")  # fmt: skip
    assert said.exit_code == 0, said.stderr
    ppo = read_manifest(tmp_path / "ppo")
    assert (ppo.kind, ppo.labels) == ("model", {"version": "ppo"}), "a report must be able to name it"


def test_gatt_preferences_and_evaluation(
    say: Say, world: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    model = world["model"]
    said = say(
        "gatt",
        "build",
        "--model",
        model,
        "--dialogs",
        files["constraints"],
        "--out",
        tmp_path / "gatt",
        *SAMPLING,
    )
    assert said.exit_code == 0, said.stderr
    said = say("prefer", "simulate", "--models", model, "--prompts", files["prompts"], "--out", tmp_path / "pairs",
               "--set", "max_new_tokens=8")  # fmt: skip
    assert said.exit_code == 2
    assert "prompt 0: expected meta with the sandbox's task" in said.stderr
    said = say("evaluate", "--model", model, "--prompts", files["prompts"], *rewards(world), "--out",
               tmp_path / "evaluation", *SAMPLING, "--json")  # fmt: skip
    assert said.exit_code == 0, said.stderr
    assert json.loads(said.stdout)["metrics"]["n"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "absent"), "absent"),
        (("--device", "cuda:7"), "present on this machine"),
        (("--set", "seq_length=64"), "Did you mean 'seq_len'"),
        (("--config", "absent.toml"), "absent.toml"),
        (("--data", "absent.jsonl"), "absent.jsonl"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    say: Say,
    world: dict[str, Path],
    files: dict[str, Path],
    tmp_path: Path,
    arguments: tuple[str, str],
    message: str,
) -> None:
    given = {"--model": str(world["model"]), "--data": str(files["dialogs"])} | {arguments[0]: arguments[1]}
    said = say("sft", "--out", tmp_path / "sft", *(part for pair in given.items() for part in pair))
    assert said.exit_code == 2
    lines = said.stderr.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "sft").exists()
