"""Shards and tokenizer of different origin are told apart, before training where possible."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pretraining.folders import sentences
from puna.core.artifacts import run_stage
from puna.core.config import Settings
from puna.core.errors import DataError
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.inputs import check_inputs
from puna.pretraining.task import PretrainingTask
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer
from puna.training.config import LoopConfig


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    words = [text.replace("llama", "piano").replace("hay", "tea") for text in sentences(7, 500)]
    train_tokenizer(words, folder / "tokenizer.model", TokenizerConfig(vocab_size=300))
    return folder


def artifact(data: Path, tokenizer: Path, out: Path) -> Path:
    """The shards as the tokenize stage leaves them, with the tokenizer in the manifest."""

    def build(context):
        shutil.copytree(data / "shards", context.folder / "shards", dirs_exist_ok=True)
        return {}

    run_stage(
        out, kind="token_shards", config=Settings(), inputs={"tokenizer": tokenizer}, seed=0, build=build
    )
    return out


def check(data: Path, tokenizer: Path) -> None:
    check_inputs(data, tokenizer, Tokenizer.load(tokenizer))


def test_what_belongs_together_passes(data_folder, tokenizer_folder, tmp_path) -> None:
    check(data_folder, tokenizer_folder)
    made = artifact(data_folder, tokenizer_folder, tmp_path / "tokens")
    check(made, tokenizer_folder)
    copied = Path(shutil.copytree(tokenizer_folder, tmp_path / "copy"))
    check(made, copied / "tokenizer.model")


def test_another_tokenizer_of_the_same_size_is_refused(
    data_folder, tokenizer_folder, other_tokenizer, tmp_path
) -> None:
    made = artifact(data_folder, tokenizer_folder, tmp_path / "tokens")
    with pytest.raises(DataError, match="the tokenizer they were made with"):
        check(made, other_tokenizer)


def with_token(data: Path, out: Path, position: int, token: int) -> Path:
    copy = Path(shutil.copytree(data, out))
    file = copy / "shards" / "train-00000.bin"
    tokens = np.fromfile(file, dtype="<u2")
    tokens[position] = token
    tokens.tofile(file)
    return copy


def test_an_id_outside_the_vocabulary_is_refused(data_folder, tokenizer_folder, tmp_path) -> None:
    with pytest.raises(DataError, match="ids below the tokenizer's 300, got id 300"):
        check(with_token(data_folder, tmp_path / "bad", 5, 300), tokenizer_folder)


def test_ids_of_another_width_are_refused(data_folder, tokenizer_folder, tmp_path) -> None:
    copy = Path(shutil.copytree(data_folder, tmp_path / "wide"))
    index = json.loads((copy / "shards" / "index.json").read_text())
    for shard in (*index["train"], *index["validation"].values()):
        file = copy / "shards" / shard["file"]
        np.fromfile(file, dtype="<u2").astype("<u4").tofile(file)
    (copy / "shards" / "index.json").write_text(json.dumps(index | {"dtype": "uint32"}))
    with pytest.raises(DataError, match="uint16 ids of its 300, got uint32"):
        check(copy, tokenizer_folder)


def test_a_bad_id_far_into_the_data_stops_at_its_place(data_folder, tmp_path) -> None:
    config = PretrainingConfig(
        seq_len=32, loop=LoopConfig(total_steps=10, warmup_steps=0, batch_size=4, micro_batch_size=2)
    )
    model = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=300, hidden_dim=16, max_seq_len=32
    )
    bad = with_token(data_folder, tmp_path / "bad", 3 * 32 + 7, 301)
    task = PretrainingTask(Transformer(model), config, data=bad, bos_id=1, seed=0)
    with pytest.raises(DataError, match=r"train-00000.bin, tokens 96 to 128: .*vocabulary's 300, got 301"):
        read_everything(task)


def read_everything(task: PretrainingTask) -> None:
    for step in range(200):
        list(task.micro_batches(step))
