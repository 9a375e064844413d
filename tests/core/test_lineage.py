"""The tree of what an artifact was made from."""

import shutil
from pathlib import Path

import pytest

from puna.core.errors import DataError
from puna.core.lineage import lineage
from small_artifacts import make


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """raw -> base -> sft -> chat, where chat also reads base."""
    (tmp_path / "raw.txt").write_text("text")
    folder = tmp_path / "run"
    base = make(folder / "base", data=tmp_path / "raw.txt", labels={"version": "pretrained"})
    sft = make(folder / "sft", seed=1, base=base)
    make(folder / "rlhf" / "chat", sft=sft, extra=[base, sft])
    return folder


def test_lineage_shows_the_tree_once(run: Path) -> None:
    tree = lineage(run / "rlhf" / "chat")
    assert [node.name for node in tree.inputs] == ["sft", "extra.0", "extra.1"]
    lines = tree.render().splitlines()
    assert [line.split(" [")[0] for line in lines] == [
        "chat: model",
        "├─ sft: model",
        "│  └─ base: model version=pretrained",
        "│     └─ data: file",
        "├─ extra.0: model version=pretrained",
        "└─ extra.1: model",
    ]
    assert [line.endswith("(unfolded above)") for line in lines] == [False] * 4 + [True] * 2


def test_lineage_survives_a_move_of_the_run(run: Path) -> None:
    moved = run.rename(run.parent / "elsewhere")
    text = lineage(moved / "rlhf" / "chat").render()
    assert "not here" not in text
    assert str(moved / "base") in text


def test_lineage_says_what_is_gone_or_replaced(run: Path) -> None:
    make(run / "sft", text="baa")
    shutil.rmtree(run / "base")
    text = lineage(run / "rlhf" / "chat").render()
    assert "sft: replaced since by another artifact" in text
    assert "extra.0: not here any more" in text


def test_lineage_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a finished artifact"):
        lineage(tmp_path)
