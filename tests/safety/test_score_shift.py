"""Figure 14's data."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from puna.core.artifacts import Manifest
from puna.core.errors import CheckpointError, ShapeError
from puna.core.progress import quiet
from puna.core.records import Message, Prompt, read_records, write_records
from puna.core.seeding import derive_seed
from puna.inference import Engine, SamplingConfig
from puna.inference.chat_model import Answer, ChatModel
from puna.model import load_model, load_score_model
from puna.safety import ShiftConfig, score_shift
from puna.safety.score_shift import Shift
from puna.tokenizer import Tokenizer, TokenizerConfig, render_prompt, train_tokenizer
from tiny_chat_models import save_chat_model, save_reward_model

SAMPLING = SamplingConfig(temperature=1.0, max_new_tokens=6)
PROMPTS = [
    Prompt(id=f"p{i}", messages=(Message(role="user", content=f"tell me {i}"),), guideline=guideline)
    for i, guideline in enumerate(("safety", "helpfulness", *["safety"] * 8))
]
ROLES = ("helpfulness", "safety")


@pytest.fixture(scope="module")
def later(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another chat model with the same tokenizer."""
    return save_chat_model(tmp_path_factory.mktemp("later") / "model", Tokenizer.load(world["model"]), seed=9)


def shift(world: dict[str, Path], root: Path, *, before: Path, after: Path) -> tuple[Manifest, list[Shift]]:
    write_records(root / "prompts.jsonl", PROMPTS)
    manifest = score_shift(
        ShiftConfig(sampling=SAMPLING),
        before=before,
        after=after,
        prompts=root / "prompts.jsonl",
        reward_models={role: world[role] for role in ROLES},
        out=root / "shift",
        seed=0,
        reporter=quiet(),
    )
    return manifest, list(read_records(root / "shift" / "scores.jsonl", Shift))


def plain_score(model: Path, reward_model: Path, prompt: Prompt) -> float:
    """A model's own answer, sampled alone and scored by a plain forward, as a probability."""
    tokenizer = Tokenizer.load(model)
    token_ids = render_prompt(prompt.messages, tokenizer)
    seeds = [derive_seed(0, "shift", prompt.id)]
    (answer,) = Engine(load_model(model, device="cpu"), tokenizer).generate(
        [token_ids], SAMPLING, seeds=seeds
    )
    response = list(answer.token_ids)
    if answer.finish_reason == "length":
        response[-1] = tokenizer.eos_id
    with torch.no_grad():
        return float(
            load_score_model(reward_model, device="cpu")(torch.tensor([[*token_ids, *response]]))[
                0, -1
            ].sigmoid()
        )


def test_each_side_is_its_own_models_answers(world: dict[str, Path], later: Path, tmp_path: Path) -> None:
    # The safety scores of this reward model lie on both sides of one half.
    judge = save_reward_model(tmp_path / "safety", Tokenizer.load(world["model"]), seed=12)
    world = world | {"safety": judge}
    manifest, shifts = shift(world, tmp_path, before=world["model"], after=later)
    assert [one.prompt_id for one in shifts] == [prompt.id for prompt in PROMPTS]
    for one, prompt in zip(shifts, PROMPTS, strict=True):
        for role in ROLES:
            first, second = (plain_score(model, world[role], prompt) for model in (world["model"], later))
            assert one.before[role] == pytest.approx(first, abs=1e-4)
            assert one.after[role] == pytest.approx(second, abs=1e-4)
            assert abs(first - second) > 1e-3, "the models must differ for this test to see it"
    rows = [one for one in shifts if one.guideline == "safety"]
    for role in ROLES:
        assert manifest.metrics["safety"][role] == pytest.approx(
            {
                "n": 9,
                "mean_before": fmean(one.before[role] for one in rows),
                "mean_after": fmean(one.after[role] for one in rows),
                "low_before": sum(one.before[role] < 0.5 for one in rows) / 9,
                "low_after": sum(one.after[role] < 0.5 for one in rows) / 9,
            }
        )
    low = manifest.metrics["safety"]["safety"]
    assert low["low_before"] != low["low_after"], "they must differ for this test to see them swapped"
    assert manifest.metrics["helpfulness"]["safety"]["n"] == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that were asked something."""
    folders: list[Path] = []
    answer = ChatModel.answer

    def recorded(chat: ChatModel, *given: Any, **options: Any) -> list[Answer]:
        folders.append(chat.folder)
        return answer(chat, *given, **options)

    monkeypatch.setattr(ChatModel, "answer", recorded)
    return folders


def test_what_the_second_model_cannot_do_is_refused_before_the_first_answers(
    world: dict[str, Path], asked: list[Path], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(world["model"])
    short = save_chat_model(tmp_path / "short", tokenizer, seed=9, max_seq_len=8)
    with pytest.raises(ShapeError, match="fewer than 8 tokens"):
        shift(world, tmp_path, before=world["model"], after=short)
    train_tokenizer(
        ["zebra quartz? jazz vex fjord."] * 9, tmp_path / "other.model", TokenizerConfig(vocab_size=300)
    )
    foreign = save_chat_model(tmp_path / "foreign", Tokenizer.load(tmp_path / "other.model"), seed=9)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        shift(world, tmp_path, before=world["model"], after=foreign)
    assert not asked


def test_an_answer_may_meet_the_end_of_the_context(world: dict[str, Path], tmp_path: Path) -> None:
    """Reward models with the chat model's own context can always read what it says."""
    tokenizer = Tokenizer.load(world["model"])
    n_tokens = max(len(render_prompt(prompt.messages, tokenizer)) for prompt in PROMPTS)
    short = save_chat_model(tmp_path / "short", tokenizer, seed=9, max_seq_len=n_tokens + 2)
    judges = {
        role: save_reward_model(tmp_path / role, tokenizer, seed=7, max_seq_len=n_tokens + 2)
        for role in ROLES
    }
    manifest, _ = shift(judges, tmp_path, before=short, after=short)
    assert manifest.metrics["n_prompts"] == len(PROMPTS)


def test_a_model_does_not_shift_against_itself(world: dict[str, Path], tmp_path: Path) -> None:
    manifest, shifts = shift(world, tmp_path, before=world["model"], after=world["model"])
    assert len({one.before["safety"] for one in shifts}) == len(PROMPTS), "answers differ, scores too"
    for one in shifts:
        assert one.before == one.after
    for guideline in ROLES:
        for numbers in (manifest.metrics[guideline][role] for role in ROLES):
            assert numbers["mean_before"] == numbers["mean_after"]
            assert numbers["low_before"] == numbers["low_after"]
