"""The stage end to end at toy size: answers are learned, kills leave no trace, and bad input is refused."""

import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from imported_tokenizers import put_unigram_model
from puna.core.errors import CheckpointError, ConfigError, DataError
from puna.core.records import write_records
from puna.model.checkpoint import load_model
from puna.supervised_finetuning import FinetuningConfig, finetune
from puna.supervised_finetuning.config import FinetuningLoopConfig, FinetuningOptimizerConfig
from puna.supervised_finetuning.task import FinetuningTask
from puna.tokenizer.chat_format import render_prompt
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.order import ShuffledOrder
from puna.training.packing import TokenizedExample, pack


@pytest.fixture
def config() -> FinetuningConfig:
    return FinetuningConfig(
        seq_len=96,
        n_epochs=6,
        validation_fraction=0.1,
        loop=FinetuningLoopConfig(
            optimizer=FinetuningOptimizerConfig(peak_lr=1e-2),
            batch_size=4,
            micro_batch_size=2,
            checkpoint_every_steps=5,
        ),
    )


@pytest.fixture
def folder(tmp_path: Path, dialogs) -> Path:
    write_records(tmp_path / "input" / "selected.jsonl", dialogs)
    return tmp_path / "input"


def weights(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("model*.safetensors")))


def test_a_chat_model_comes_out_and_has_learned(config, base_model, folder, tmp_path) -> None:
    inputs = {"base_model": base_model, "dialogs": [folder]}
    manifest = finetune(config, **inputs, out=tmp_path / "sft", seed=0)
    metrics = manifest.metrics
    assert (manifest.kind, manifest.labels) == ("model", {"version": "sft"})
    assert metrics["n_dialogs"] + metrics["n_held_out"] == 80
    assert metrics["steps"] == math.ceil(6 * metrics["rows"] / 4)
    assert 0 < metrics["padding_fraction"] < 0.3
    assert metrics["validation"]["loss"] < 0.5 * math.log(310)
    assert metrics["dropped"] == {"too_long": 0, "special_tags": 0, "no_answer": 0}
    tokenizer = Tokenizer.load(tmp_path / "sft")
    assert tokenizer.vocab_size == load_model(tmp_path / "sft", device="cpu").config.vocab_size
    assert (tmp_path / "sft" / "tokenizer_config.json").is_file()
    assert finetune(config, **inputs, out=tmp_path / "sft", seed=0) == manifest, "unchanged: skipped"


def test_learning_answers_teaches_answers(config, base_model, folder, dialogs, tmp_path) -> None:
    finetune(config, base_model=base_model, dialogs=[folder], out=tmp_path / "sft", seed=0)
    tokenizer, model = Tokenizer.load(tmp_path / "sft"), load_model(tmp_path / "sft", device="cpu")
    tokens = render_prompt(dialogs[0].messages[:1], tokenizer)
    for _ in range(40):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == tokenizer.eos_id:
            break
    assert tokens[-1] == tokenizer.eos_id, "it has learned to stop"


def test_killed_at_any_moment_it_ends_with_the_same_model(config, base_model, folder, tmp_path) -> None:
    def train(name: str) -> None:
        finetune(config, base_model=base_model, dialogs=[folder], out=tmp_path / name, seed=0)

    train("whole")
    n_killed = 0
    for seconds in (0.1, 0.25):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            train("killed")
            os._exit(0)
        n_killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert n_killed, "the first child was to be killed"
    train("killed")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_constant_number_of_steps_and_labels_can_be_given(config, base_model, folder, tmp_path) -> None:
    constant = config.model_copy(update={"loop": config.loop.model_copy(update={"total_steps": 7})})
    manifest = finetune(
        constant,
        base_model=base_model,
        dialogs=[folder, folder],
        out=tmp_path / "v1",
        seed=0,
        labels={"version": "rlhf-v1"},
    )
    assert manifest.metrics["steps"] == 7
    assert manifest.labels == {"version": "rlhf-v1"}
    assert manifest.inputs.keys() == {"base_model", "dialogs.0", "dialogs.1"}


def test_packing_does_not_change_the_loss(base_model, dialogs) -> None:
    model, examples = load_model(base_model, device="cpu"), []
    for length, n_prompt in ((9, 4), (14, 6), (5, 2), (20, 12)):
        tokens = torch.randint(3, 310, (length,), generator=torch.Generator().manual_seed(length)).tolist()
        examples.append(TokenizedExample(tokens, [False] * n_prompt + [True] * (length - n_prompt)))

    def loss(parts: list[TokenizedExample], seq_len: int) -> tuple[float, int]:
        rows = pack(parts, seq_len=seq_len)
        order = ShuffledOrder(len(rows), batch_size=1, seed=0)
        task = FinetuningTask(model, train=rows, validation=rows, order=order, micro_batch_size=1)
        made = task.loss(rows)
        return made.sum.item(), made.n_targets

    alone = [loss([example], 32) for example in examples]
    packed = loss(examples, 64)
    assert packed[0] == pytest.approx(sum(nats for nats, _ in alone), rel=1e-5)
    assert packed[1] == sum(n for _, n in alone) == 5 + 8 + 3 + 8


def test_nothing_to_learn_is_an_error(config, base_model, tmp_path) -> None:
    (tmp_path / "dialogs.jsonl").touch()
    with pytest.raises(DataError, match="at least one dialog"):
        finetune(
            config, base_model=base_model, dialogs=[tmp_path / "dialogs.jsonl"], out=tmp_path / "o", seed=0
        )


def test_rows_longer_than_the_context_are_refused(config, base_model, folder, tmp_path) -> None:
    longer = config.model_copy(update={"seq_len": 129})
    with pytest.raises(ConfigError, match="context of 128 tokens"):
        finetune(longer, base_model=base_model, dialogs=[folder], out=tmp_path / "sft", seed=0)


def test_a_tokenizer_that_cannot_be_saved_is_refused_before_training(
    config, base_model, folder, tmp_path
) -> None:
    base = Path(shutil.copytree(base_model, tmp_path / "base"))
    put_unigram_model(base)
    with pytest.raises(CheckpointError, match="a unigram model that encodes differently"):
        finetune(config, base_model=base, dialogs=[folder], out=tmp_path / "sft", seed=0)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_paper_defaults_survive_a_partial_recipe() -> None:
    config = FinetuningConfig.model_validate({"loop": {"micro_batch_size": 2, "optimizer": {"eps": 1e-8}}})
    loop = config.loop.for_steps(100)
    assert (loop.batch_size, config.seq_len, config.n_epochs, loop.schedule) == (64, 4096, 2, "cosine")
    assert (loop.optimizer.peak_lr, loop.optimizer.weight_decay, loop.n_warmup_steps) == (2e-5, 0.1, 0)
