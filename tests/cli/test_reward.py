"""`puna reward score` prints what `score_file` returns."""

import json
from pathlib import Path

import pytest
import torch

from puna.core.records import Comparison, Message, Side, write_records
from puna.reward_modeling.scoring import score_file

CPU = torch.device("cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    def pair(number: int) -> Comparison:
        return Comparison(
            id=str(number),
            prompt=(Message(role="user", content="what color is the hen?"),),
            chosen=Side(response="the hen is red."),
            rejected=Side(response="moo. " * number),
            rating="better",
        )

    write_records(tmp_path / "pairs.jsonl", [pair(number) for number in range(1, 4)])
    return tmp_path / "pairs.jsonl"


def test_comparisons_get_a_score_for_each_side(say, world: dict[str, Path], pairs: Path) -> None:
    said = say("reward", "score", world["safety"], "--data", pairs, "--json")
    assert json.loads(said.stdout)["scores"] == score_file(world["safety"], pairs, device=CPU)
    assert len(score_file(world["safety"], pairs, device=CPU)) == 3


def test_lines_without_json_are_one_a_comparison(say, world: dict[str, Path], pairs: Path) -> None:
    said = say("reward", "score", world["safety"], "--data", pairs)
    assert [json.loads(line) for line in said.stdout.splitlines()] == score_file(
        world["safety"], pairs, device=CPU
    )


def test_an_empty_file_has_no_scores(say, world: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    said = say("reward", "score", world["safety"], "--data", tmp_path / "empty.jsonl", "--json")
    assert json.loads(said.stdout) == {"scores": []}
