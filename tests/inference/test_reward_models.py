"""Scores of answers: the end of a sequence by closed form, the reward model's own logits, and checks at the door."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.artifacts import read_manifest
from puna.core.errors import CheckpointError, ConfigError, ShapeError
from puna.core.fingerprint import hash_content
from puna.core.records import FinishReason
from puna.inference.chat_model import Answer
from puna.inference.request import Completion
from puna.inference.reward_models import RewardModels, as_probs, ended_sequence
from puna.inference.score import score_sequences
from puna.model import load_score_model
from puna.tokenizer import Tokenizer
from tiny_chat_models import save_chat_model, save_reward_model, tiny_tokenizer

CPU = torch.device("cpu")
EOS = 2


@pytest.mark.parametrize(
    ("response", "reason", "max_tokens", "expected"),
    [
        ([6, 7, EOS], "eos", 99, [1, 5, 6, 7, EOS]),
        ([6, 7, EOS], "eos", 5, [1, 5, 6, 7, EOS]),
        ([EOS], "eos", 99, [1, 5, EOS]),
        ([6, 9], "eos", 99, [1, 5, 6, 9]),  # a chat template's own end of turn
        ([6, 7], "stop", 99, [1, 5, 6, 7, EOS]),
        ([6, 7], "stop", 5, [1, 5, 6, 7, EOS]),
        ([6, 7], "stop", 4, [1, 5, 6, EOS]),
        ([], "stop", 99, [1, 5, EOS]),
        ([6, 7], "length", 99, [1, 5, 6, EOS]),
        ([6, 7], "length", 4, [1, 5, 6, EOS]),
        ([6], "length", 99, [1, 5, EOS]),
        ([], "length", 99, [1, 5, EOS]),
        ([6, 7], "cancelled", 99, [1, 5, 6, EOS]),
        ([6, 7], "cancelled", 4, [1, 5, 6, EOS]),
        ([], "cancelled", 99, [1, 5, EOS]),
    ],
)
def test_how_a_response_is_ended(
    response: list[int], reason: FinishReason, max_tokens: int, expected: list[int]
) -> None:
    assert ended_sequence([1, 5], response, reason, eos_id=EOS, max_tokens=max_tokens) == expected


@given(
    st.lists(st.integers(3, 9), min_size=1, max_size=6),
    st.lists(st.integers(3, 9), min_size=1, max_size=6),
    st.sampled_from(["stop", "length", "cancelled"]),
    st.integers(0, 3),
)
def test_an_ended_sequence_has_one_end_and_fits_where_prompt_and_response_did(
    prompt: list[int], response: list[int], reason: FinishReason, n_free: int
) -> None:
    n_tokens = len(prompt) + len(response)
    given_lists = (list(prompt), list(response))
    tokens = ended_sequence(prompt, response, reason, eos_id=EOS, max_tokens=n_tokens + n_free)
    assert tokens.index(EOS) == len(tokens) - 1
    assert tokens[:-1] == (prompt + response)[: len(tokens) - 1]
    assert len(tokens) == n_tokens + (reason == "stop" and n_free > 0)
    assert (prompt, response) == given_lists


def test_as_probs_is_the_sigmoid() -> None:
    logits = [0.0, math.log(3), -math.log(3), 40.0, -1000.0, 1000.0]
    assert as_probs(logits) == pytest.approx([0.5, 0.75, 0.25, 1 / (1 + math.exp(-40)), 0, 1], abs=1e-15)
    assert as_probs([]) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rewards")


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> Tokenizer:
    return tiny_tokenizer(root / "tokenizer")


@pytest.fixture(scope="module")
def folders(root: Path, tokenizer: Tokenizer) -> dict[str, Path]:
    return {
        "safety": save_reward_model(root / "safety", tokenizer, seed=3),
        "helpfulness": save_reward_model(root / "helpfulness", tokenizer, seed=2),
    }


@pytest.fixture(scope="module")
def rewards(folders: dict[str, Path], tokenizer: Tokenizer) -> RewardModels:
    return RewardModels.load(folders, tokenizer, device=CPU)


def completion(*token_ids: int, reason: FinishReason) -> Completion:
    return Completion(
        token_ids=list(token_ids), logprobs=[-1.0] * len(token_ids), finish_reason=reason, text=None
    )


PROMPTS = [[1, 260, 270, 280], [1, 261, 271], [1, 262, 272, 282, 292], [1, 263], [1, 264, 274]]
COMPLETIONS = [
    completion(265, 275, EOS, reason="eos"),
    completion(266, 276, 286, reason="stop"),
    completion(267, 277, 287, 297, reason="length"),
    completion(268, 278, reason="cancelled"),
    completion(reason="cancelled"),
]
SEQUENCES = [
    [1, 260, 270, 280, 265, 275, EOS],
    [1, 261, 271, 266, 276, 286, EOS],
    [1, 262, 272, 282, 292, 267, 277, 287, EOS],
    [1, 263, 268, EOS],
    [1, 264, 274, EOS],
]
ANSWERS = [Answer(ids, c, "moo") for ids, c in zip(PROMPTS, COMPLETIONS, strict=True)]


def test_scores_are_the_reward_models_own_on_sequences_written_by_hand(
    rewards: RewardModels, folders: dict[str, Path]
) -> None:
    expected = {
        role: score_sequences(load_score_model(folder, device="cpu").eval(), SEQUENCES)
        for role, folder in folders.items()
    }
    assert expected["safety"] != expected["helpfulness"]
    assert rewards.score(PROMPTS, COMPLETIONS) == expected
    assert rewards.score_answers(ANSWERS) == expected
    one_at_a_time = rewards.score(PROMPTS, COMPLETIONS, max_batch_size=1)
    for role, scores in expected.items():
        assert one_at_a_time[role] == pytest.approx(scores, abs=1e-5)
        for sequence, score in zip(SEQUENCES, scores, strict=True):
            with torch.no_grad():
                alone = rewards.models[role](torch.tensor([sequence]))[0, -1].item()
            assert score == pytest.approx(alone, abs=1e-5)


def test_the_reward_models_may_read_another_prompt_than_was_asked(rewards: RewardModels) -> None:
    """The prompt without its safety preprompt: what was asked does not matter then."""
    with_preprompt = [
        Answer([1, 290, 291, *answer.prompt_ids], answer.completion, answer.text) for answer in ANSWERS
    ]
    bare = rewards.score_answers(with_preprompt, prompts=PROMPTS)
    assert bare == rewards.score_answers(ANSWERS)
    assert bare != rewards.score_answers(with_preprompt)


def test_each_answer_needs_its_prompt(rewards: RewardModels) -> None:
    with pytest.raises(ValueError, match="zip"):
        rewards.score_answers(ANSWERS, prompts=PROMPTS[:-1])
    with pytest.raises(ValueError, match="zip"):
        rewards.score(PROMPTS, COMPLETIONS[:-1])


def test_nothing_has_no_scores(rewards: RewardModels) -> None:
    assert rewards.score([], []) == {"helpfulness": [], "safety": []}


def test_without_reward_models_there_are_no_scores(tokenizer: Tokenizer) -> None:
    """Where they are optional, as in an evaluation without them."""
    none = RewardModels.load({}, tokenizer, device=CPU)
    none.check_room(10**6)
    assert none.score_answers(ANSWERS) == {}


def test_roles_and_where_they_came_from(rewards: RewardModels, folders: dict[str, Path]) -> None:
    assert list(rewards.models) == list(rewards.fingerprints) == list(rewards.folders) == sorted(folders)
    assert rewards.fingerprints == {role: read_manifest(f).fingerprint for role, f in folders.items()}
    assert rewards.fingerprints["safety"] != rewards.fingerprints["helpfulness"]
    assert rewards.folders == folders
    assert rewards.eos_id == EOS
    assert not any(model.training for model in rewards.models.values())


def test_only_the_wanted_roles_are_read(folders: dict[str, Path], tokenizer: Tokenizer) -> None:
    with_ruin = folders | {"safety": folders["safety"] / "nowhere"}
    rewards = RewardModels.load(with_ruin, tokenizer, device=CPU, roles=["helpfulness"])
    assert list(rewards.models) == ["helpfulness"]
    scores = rewards.score(PROMPTS, COMPLETIONS)
    assert list(scores) == ["helpfulness"]
    turned = RewardModels.load(folders, tokenizer, device=CPU, roles=("safety", "helpfulness"))
    assert turned.score(PROMPTS, COMPLETIONS)["helpfulness"] == scores["helpfulness"]


def test_a_folder_without_manifest_is_known_by_its_content(
    root: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = save_reward_model(tmp_path / "bare", tokenizer, seed=4)
    (folder / "manifest.json").unlink()
    rewards = RewardModels.load({"safety": folder}, tokenizer, device=CPU)
    assert rewards.fingerprints == {"safety": hash_content(folder)}


@pytest.mark.parametrize(
    ("given_roles", "wanted", "expected", "got"),
    [
        (["helpfulness"], ["helpfulness", "safety"], "one for safety", "helpfulness"),
        ([], ["safety"], "one for safety", "none"),
        (["kindness"], None, "roles among helpfulness, safety", "kindness"),
        (
            ["helpfulness", "kindness"],
            ["kindness"],
            "roles among helpfulness, safety",
            "helpfulness, kindness",
        ),
    ],
)
def test_a_missing_or_unknown_role_is_refused_before_anything_is_read(
    given_roles: list[str],
    wanted: list[str] | None,
    expected: str,
    got: str,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    folders = dict.fromkeys(given_roles, tmp_path / "nowhere")
    with pytest.raises(ConfigError) as caught:
        RewardModels.load(folders, tokenizer, device=CPU, roles=wanted)
    assert (caught.value.where, caught.value.expected, caught.value.got) == ("reward_models", expected, got)


def test_a_chat_model_is_no_reward_model(root: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "chat", tokenizer, seed=1)
    with pytest.raises(CheckpointError, match="LlamaForSequenceClassification"):
        RewardModels.load({"safety": folder}, tokenizer, device=CPU)


# Tokenizers


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The folder with its tokenizer as tokenizer.json alone, changed."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    (folder / "tokenizer.model").unlink()
    (folder / "manifest.json").unlink()
    return folder


def keep(content: dict[str, Any]) -> None:
    """No change."""


def swap(first: str, second: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        vocab[first], vocab[second] = vocab[second], vocab[first]

    return change


def forget_merges(content: dict[str, Any]) -> None:
    content["model"]["merges"] = []


def lower_case(content: dict[str, Any]) -> None:
    content["normalizer"]["normalizers"].append({"type": "Lowercase"})


def test_the_same_tokenizer_in_another_file_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = rewritten(save_reward_model(tmp_path / "reward", tokenizer, seed=3), keep)
    assert list(RewardModels.load({"safety": folder}, tokenizer, device=CPU).models) == ["safety"]


@pytest.mark.parametrize(
    "change",
    [swap("he", "IN"), swap("<0xFE>", "<0xFF>"), forget_merges, lower_case],
    ids=["a permutation", "a permutation of rare pieces", "other rules", "another normalizer"],
)
def test_another_tokenizer_of_the_same_size_is_refused(
    change: Callable[[dict[str, Any]], None], folders: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = rewritten(save_reward_model(tmp_path / "reward", tokenizer, seed=3), change)
    assert Tokenizer.load(folder).vocab_size == tokenizer.vocab_size
    with pytest.raises(CheckpointError, match="the tokenizer of the chat model") as caught:
        RewardModels.load(folders | {"safety": folder}, tokenizer, device=CPU)
    assert caught.value.where == str(folder), "the one of the two that is wrong"


def test_another_end_token_is_refused(folders: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = rewritten(save_reward_model(tmp_path / "reward", tokenizer, seed=3), keep)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"eos_token": "<unk>"}))
    other = Tokenizer.load(folder)
    assert other.eos_id != tokenizer.eos_id
    assert other.pieces(range(300)) == tokenizer.pieces(range(300))
    with pytest.raises(CheckpointError, match="the tokenizer of the chat model"):
        RewardModels.load(folders | {"helpfulness": folder}, tokenizer, device=CPU)


def test_tokenizers_are_compared_before_weights_are_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = save_reward_model(tmp_path / "helpfulness", tokenizer, seed=3)
    (whole / "model.safetensors").unlink()
    other = rewritten(save_reward_model(tmp_path / "safety", tokenizer, seed=3), forget_merges)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        RewardModels.load({"helpfulness": whole, "safety": other}, tokenizer, device=CPU)


# Room


@pytest.fixture(scope="module")
def short(root: Path, folders: dict[str, Path], tokenizer: Tokenizer) -> RewardModels:
    """The safety model reads 40 tokens, the helpfulness model 160."""
    folder = save_reward_model(root / "short", tokenizer, seed=3, max_seq_len=40)
    return RewardModels.load(folders | {"safety": folder}, tokenizer, device=CPU)


def test_a_short_context_is_refused_by_name_before_sampling(
    short: RewardModels, rewards: RewardModels
) -> None:
    assert (short.max_seq_len, rewards.max_seq_len) == (40, 160)
    short.check_room(40)
    rewards.check_room(160)
    with pytest.raises(ShapeError) as caught:
        short.check_room(41)
    assert caught.value.where == str(short.folders["safety"])
    assert "at least 41 tokens" in caught.value.expected
    assert caught.value.got == "40 tokens"
    assert "max_new_tokens" in caught.value.fix
    with pytest.raises(ShapeError, match="helpfulness"):
        rewards.check_room(161)


@pytest.mark.parametrize("reason", ["eos", "stop", "length", "cancelled"])
def test_what_check_room_lets_through_can_be_scored(short: RewardModels, reason: FinishReason) -> None:
    """Prompt and response fill the shorter context exactly: the end token takes no room of its own."""
    prompt, response = [1, *[260] * 29], [*range(270, 279), EOS if reason == "eos" else 279]
    short.check_room(len(prompt) + len(response))
    scores = short.score([prompt], [completion(*response, reason=reason)])
    by_hand = [*prompt, *response[:-1], EOS]
    assert scores == {role: score_sequences(model, [by_hand]) for role, model in short.models.items()}


def test_both_models_read_the_same_tokens(short: RewardModels) -> None:
    """Where the shorter context is full, the longer one does not read a token more."""
    prompt, response = [1, *[260] * 29], list(range(270, 280))
    scores = short.score([prompt], [completion(*response, reason="stop")])
    assert scores["helpfulness"] == score_sequences(
        short.models["helpfulness"], [[*prompt, *response[:-1], EOS]]
    )


@pytest.mark.gpu
def test_they_score_on_the_device_they_were_loaded_to(
    folders: dict[str, Path], tokenizer: Tokenizer, rewards: RewardModels
) -> None:
    there = RewardModels.load(folders, tokenizer, device=torch.device("cuda"))
    assert all(w.device.type == "cuda" for m in there.models.values() for w in m.parameters())
    mine, theirs = rewards.score(PROMPTS, COMPLETIONS), there.score(PROMPTS, COMPLETIONS)
    for role, scores in mine.items():
        assert theirs[role] == pytest.approx(scores, abs=1e-3)


def test_a_reward_model_of_the_other_role_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Helpful and unsafe would be kept for safe; a folder that names no role is taken at its word."""
    folder = save_reward_model(tmp_path / "rm", tokenizer, seed=7)
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"labels": {"role": "safety"}}))
    assert set(RewardModels.load({"safety": folder}, tokenizer, device=CPU).models) == {"safety"}
    with pytest.raises(
        ConfigError, match="expected a helpfulness reward model, got one that was trained for safety"
    ):
        RewardModels.load({"helpfulness": folder}, tokenizer, device=CPU)
