"""Dialogs in, answers out: the engine's own answers, and a record of where they came from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from puna.core.artifacts import read_manifest
from puna.core.errors import CheckpointError, DataError, ProtocolError, ShapeError
from puna.core.fingerprint import hash_content
from puna.core.progress import quiet
from puna.core.records import Message, Provenance
from puna.inference.chat_model import ChatModel
from puna.inference.engine import Engine
from puna.inference.sampling import SamplingConfig
from puna.model import load_model
from puna.tokenizer import Tokenizer, render_prompt
from tiny_chat_models import save_chat_model, save_reward_model, tiny_tokenizer

CPU = torch.device("cpu")
SAMPLING = SamplingConfig(temperature=0.8, top_p=0.95, max_new_tokens=24)


def ask(*texts: str) -> list[Message]:
    """User and assistant in turn."""
    roles = ("user", "assistant")
    return [Message(role=roles[i % 2], content=text) for i, text in enumerate(texts)]


DIALOGS = [
    ask("what color is the hen?"),
    ask("how many legs has the cow?", "the cow has four legs.", "and the hen?"),
    [Message(role="system", content="always end with moo."), *ask("what color is the cow?")],
    ask("what color is the hen?"),
]
SEEDS = [3, 1, 4, 2**63]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    return save_chat_model(root / "model", tiny_tokenizer(root / "tokenizer"), seed=1)


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatModel:
    return ChatModel.load(folder, device=CPU)


@pytest.fixture
def bare(folder: Path, tmp_path: Path) -> Path:
    """The same model as others publish theirs: without a manifest."""
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "manifest.json").unlink()
    return tmp_path / "bare"


def test_its_answers_are_the_engines_to_the_last_bit(folder: Path, chat: ChatModel) -> None:
    tokenizer = Tokenizer.load(folder)
    prompts = [render_prompt(dialog, tokenizer) for dialog in DIALOGS]
    engine = Engine(load_model(folder, device="cpu").eval(), tokenizer)
    completions = engine.generate(prompts, SAMPLING, seeds=SEEDS)
    answers = chat.answer(DIALOGS, SAMPLING, seeds=SEEDS, reporter=quiet())
    assert [answer.prompt_ids for answer in answers] == prompts
    assert [answer.completion for answer in answers] == completions
    assert [answer.text for answer in answers] == [engine.text(completion) for completion in completions]
    assert len({tuple(completion.token_ids) for completion in completions}) == len(DIALOGS)


def test_dialogs_and_their_tokens_give_the_same_answers(chat: ChatModel) -> None:
    rendered = [chat.render(dialog) for dialog in DIALOGS]
    assert rendered[1][0] == chat.tokenizer.bos_id
    kept = [list(ids) for ids in rendered]
    from_tokens = chat.answer(rendered, SAMPLING, seeds=SEEDS)
    assert from_tokens == chat.answer(DIALOGS, SAMPLING, seeds=SEEDS)
    assert rendered == kept
    from_tokens[0].prompt_ids.append(7)
    assert rendered == kept, "an answer holds its own copy"


def test_an_answer_depends_on_its_prompt_and_seed_alone(folder: Path, chat: ChatModel) -> None:
    together = chat.answer(DIALOGS, SAMPLING, seeds=SEEDS)
    for dialog, seed, answer in zip(DIALOGS, SEEDS, together, strict=True):
        assert chat.answer([dialog], SAMPLING, seeds=[seed]) == [answer]
    turned = chat.answer(DIALOGS[::-1], SAMPLING, seeds=SEEDS[::-1])
    assert turned[::-1] == together
    few_at_once = ChatModel.load(folder, device=CPU, max_batch_size=2)
    assert few_at_once.engine.max_batch_size == 2
    assert few_at_once.answer(DIALOGS, SAMPLING, seeds=SEEDS) == together


def test_the_name_of_the_device_changes_no_bit(folder: Path, chat: ChatModel) -> None:
    numbered = ChatModel.load(folder, device=torch.device("cpu:0"))
    assert numbered.answer(DIALOGS, SAMPLING, seeds=SEEDS) == chat.answer(DIALOGS, SAMPLING, seeds=SEEDS)


@pytest.mark.gpu
def test_it_answers_on_the_device_it_was_loaded_to(folder: Path, chat: ChatModel) -> None:
    greedy = SamplingConfig(temperature=0, max_new_tokens=4)
    there = ChatModel.load(folder, device=torch.device("cuda"))
    assert all(weight.device.type == "cuda" for weight in there.transformer.parameters())
    mine, theirs = (model.answer(DIALOGS, greedy, seeds=SEEDS) for model in (chat, there))
    assert [a.completion.token_ids for a in mine] == [a.completion.token_ids for a in theirs]


def test_it_is_ready_to_answer(chat: ChatModel) -> None:
    assert not chat.transformer.training
    assert chat.engine.model is chat.transformer
    assert chat.answer([], SAMPLING, seeds=[]) == []


@pytest.mark.parametrize(
    ("prompts", "seeds", "error"),
    [
        ([ask("moo?", "moo.")], [0], ProtocolError),
        ([[]], [0], ProtocolError),
        ([[1] * 160], [0], ShapeError),
        ([[1, 5], [1, 6]], [0], ShapeError),
    ],
)
def test_what_cannot_be_answered_is_refused(
    chat: ChatModel, prompts: Sequence[Sequence[Message]], seeds: list[int], error: type[Exception]
) -> None:
    with pytest.raises(error):
        chat.answer(prompts, SAMPLING, seeds=seeds)
    assert chat.engine.n_live == 0


def test_room_is_what_a_whole_response_leaves(chat: ChatModel) -> None:
    assert chat.max_seq_len == 160
    assert chat.room(SAMPLING) == 160 - 24
    n_fit = chat.room(SAMPLING)
    greedy = SAMPLING.model_copy(update={"temperature": 0.0})
    for n_prompt, n_response in ((n_fit, 24), (n_fit + 1, 23)):
        (answer,) = chat.answer([[1, *[259] * (n_prompt - 1)]], greedy, seeds=[0])
        assert answer.finish_reason == "length"
        assert len(answer.completion.token_ids) == n_response


def test_an_artifact_is_known_by_its_manifest(folder: Path, chat: ChatModel) -> None:
    assert chat.fingerprint == read_manifest(folder).fingerprint
    assert chat.version == "sft"
    assert chat.folder == folder
    assert chat.provenance(SAMPLING, seed=7) == Provenance(
        model=chat.fingerprint, version="sft", temperature=0.8, top_p=0.95, seed=7
    )


def test_a_folder_without_manifest_is_known_by_its_content(
    bare: Path, chat: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ChatModel.load(bare, device=CPU)
    assert loaded.fingerprint == hash_content(bare) != chat.fingerprint
    assert loaded.version == "bare"
    assert loaded.provenance(SAMPLING, seed=7).model == loaded.fingerprint
    assert loaded.answer(DIALOGS, SAMPLING, seeds=SEEDS) == chat.answer(DIALOGS, SAMPLING, seeds=SEEDS)
    monkeypatch.chdir(bare)
    assert ChatModel.load(Path(), device=CPU).version == "bare", "also by a relative path"
    (bare / "extra.txt").write_text("x")
    assert ChatModel.load(bare, device=CPU).fingerprint != loaded.fingerprint


def test_an_artifact_without_version_is_named_by_its_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "mine")
    values = json.loads((tmp_path / "mine" / "manifest.json").read_text())
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps(values | {"labels": {}}))
    assert ChatModel.load(tmp_path / "mine", device=CPU).version == "mine"


def test_a_model_of_the_version_before_answers_and_keeps_its_name(
    folder: Path, chat: ChatModel, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "old")
    values = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(values | {"schema_version": 1}))
    old = ChatModel.load(tmp_path / "old", device=CPU)
    assert (old.fingerprint, old.version) == (chat.fingerprint, "sft")
    assert old.answer(DIALOGS, SAMPLING, seeds=SEEDS) == chat.answer(DIALOGS, SAMPLING, seeds=SEEDS)


def test_what_is_no_chat_model_is_refused(bare: Path, tmp_path: Path) -> None:
    reward_model = save_reward_model(tmp_path / "reward", Tokenizer.load(bare), seed=2)
    with pytest.raises(CheckpointError, match="LlamaForCausalLM"):
        ChatModel.load(reward_model, device=CPU)
    with pytest.raises(CheckpointError):
        ChatModel.load(tmp_path / "nowhere", device=CPU)
    for name in ("tokenizer.model", "tokenizer.json"):
        (bare / name).unlink()
    with pytest.raises(DataError, match=r"tokenizer\.model or tokenizer\.json"):
        ChatModel.load(bare, device=CPU)
