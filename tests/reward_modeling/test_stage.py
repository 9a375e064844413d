"""A reward model learns an easy preference, keeps what it measured, and scores files."""

import json
from pathlib import Path

import pytest
import torch

from puna.core.artifacts import read_manifest, verify
from puna.core.errors import CheckpointError, ConfigError, DataError
from puna.core.machine import Machine
from puna.core.records import Comparison, FinishReason, Provenance, Sample, Side, read_records, write_records
from puna.model import load_score_model
from puna.reward_modeling import (
    RewardModelConfig,
    ScoredPair,
    score_comparisons,
    score_file,
    stage,
    train_reward_model,
)
from puna.reward_modeling.config import RewardLoopConfig, RewardOptimizerConfig
from puna.reward_modeling.encoding import encode_response
from puna.reward_modeling.scoring import score_samples
from puna.reward_modeling.task import RankingTask
from puna.tokenizer import Tokenizer, TokenizerConfig, render_prompt, train_tokenizer
from ranked_pairs import comparison
from recorded_loads import ELSEWHERE, record_loads
from tiny_chat_models import save_reward_model

LOOP = RewardLoopConfig(
    optimizer=RewardOptimizerConfig(peak_lr=3e-3), batch_size=16, micro_batch_size=8, log_every_steps=1
)
CONFIG = RewardModelConfig(n_epochs=2, loop=LOOP)

CPU = torch.device("cpu")


def train(
    out: Path, world: dict[str, Path], preferences: Path, config: RewardModelConfig = CONFIG, **options
):
    return train_reward_model(
        config,
        chat_model=world["model"],
        comparisons=[preferences],
        out=out,
        seed=0,
        **{"role": "safety", **options},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: dict[str, Path], preferences: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "rm-safety"
    train(out, world, preferences, labels={"round": "1"})
    return out


def test_defaults_are_the_papers() -> None:
    loop = RewardModelConfig.model_validate({"loop": {"micro_batch_size": 4}}).loop
    assert (loop.optimizer.peak_lr, loop.batch_size) == (1e-5, 512)
    assert loop.for_steps(1000).n_warmup_steps == 30
    assert loop.for_steps(100).n_warmup_steps == 5


def test_it_learns(trained: Path) -> None:
    manifest = read_manifest(trained)
    assert manifest.labels == {"role": "safety", "round": "1"}
    assert manifest.metrics["accuracy"] == 1.0
    assert manifest.metrics["unsafe_recall"] == 1.0
    assert manifest.metrics["by_test_set"]["helpfulness"]["n"] == 32
    assert manifest.metrics["own_fraction"] == pytest.approx(96 / 107)
    assert manifest.metrics["train_loss"] < 0.8  # starts near 1.6: log(1 + exp(1/2)) and log 2
    assert set(manifest.metrics["accuracy_by_rating"]) == {
        "significantly_better", "better", "slightly_better", "negligibly_better",
    }  # fmt: skip


def test_the_folder_is_a_sequence_classifier(trained: Path) -> None:
    verify(trained)
    config = json.loads((trained / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert (trained / "tokenizer.model").is_file()


def test_saved_model_gives_the_scores_that_were_measured(trained: Path, preferences: Path) -> None:
    kept = list(read_records(trained / "held_out_scores.jsonl", ScoredPair))
    scores = score_file(trained, preferences / "test.jsonl", device=CPU)
    assert [list(pair) for pair in scores] == [
        pytest.approx([pair.chosen, pair.rejected], abs=1e-5) for pair in kept
    ]


def sample(pair: Comparison, side: Side, token_ids: list[int], finish_reason: FinishReason = "eos") -> Sample:
    return Sample(
        id=f"p-{side.response}",
        prompt_id="p",
        prompt=pair.prompt,
        response=side.response,
        token_ids=tuple(token_ids),
        logprobs=(-1.0,) * len(token_ids),
        finish_reason=finish_reason,
        provenance=Provenance(model="m", version="sft", temperature=1.0, top_p=1.0, seed=0),
    )


def test_samples_score_as_the_same_responses_in_comparisons(trained: Path, tmp_path: Path) -> None:
    """Where the sampled tokens are those of the text."""
    pair, tokenizer = comparison(3), Tokenizer.load(trained)
    n_prompt = len(render_prompt(pair.prompt, tokenizer))
    samples = [
        sample(pair, side, encode_response(pair.prompt, side.response, tokenizer)[n_prompt:])
        for side in (pair.chosen, pair.rejected)
    ]
    write_records(tmp_path / "samples.jsonl", samples)
    (scored,) = score_comparisons(trained, [pair], device=CPU)
    assert score_file(trained, tmp_path / "samples.jsonl", device=CPU) == pytest.approx(
        [scored.chosen, scored.rejected]
    )


def test_a_sample_is_scored_by_its_tokens_and_not_by_its_text(trained: Path) -> None:
    """A response sampled letter by letter, and a cut one, beside plain forwards of exactly these tokens."""
    pair, tokenizer = comparison(3), Tokenizer.load(trained)
    prompt, eos_id = render_prompt(pair.prompt, tokenizer), tokenizer.eos_id
    letters = [token for letter in "the hen is red." for token in tokenizer.encode(letter)[-1:]]
    assert letters != tokenizer.encode("the hen is red.")
    side = Side(response=tokenizer.decode(letters).strip())
    ended = sample(pair, side, [*letters, eos_id])
    cut = sample(pair, side, letters, "length")
    expected = [[*prompt, *letters, eos_id], [*prompt, *letters[:-1], eos_id]]
    model = load_score_model(trained, device=CPU)
    with torch.no_grad():
        forwards = [float(model(torch.tensor([tokens]))[0, -1]) for tokens in expected]
    assert score_samples(trained, [ended, cut], device=CPU) == pytest.approx(forwards, abs=1e-5)
    foreign = sample(pair, Side(response="moo"), letters)
    with pytest.raises(DataError, match="sample p-moo: expected token ids that say 'moo'"):
        score_samples(trained, [foreign], device=CPU)


def test_same_seed_same_bits_and_the_roles_differ(
    tmp_path: Path, trained: Path, world: dict[str, Path], preferences: Path
) -> None:
    again = train(tmp_path / "again", world, preferences, labels={"round": "1"})
    other = train(tmp_path / "other", world, preferences, role="helpfulness")
    before = read_manifest(trained)
    assert again.files["model.safetensors"] == before.files["model.safetensors"]
    assert other.fingerprint != before.fingerprint
    assert (other.config["role"], before.config["role"]) == ("helpfulness", "safety")
    assert other.labels == {"role": "helpfulness"}
    assert "safety_loss" not in (tmp_path / "other" / "metrics.jsonl").read_text()
    assert "safety_loss" in (trained / "metrics.jsonl").read_text()


def test_the_machine_is_obeyed_and_changes_no_artifact(
    trained: Path, tmp_path: Path, world: dict[str, Path], preferences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = record_loads(monkeypatch, stage)
    there = train(tmp_path / "there", world, preferences, labels={"round": "1"}, machine=ELSEWHERE)
    assert devices == [torch.device("cpu:0")]
    assert there.files["model.safetensors"] == read_manifest(trained).files["model.safetensors"]
    assert there.fingerprint == read_manifest(trained).fingerprint
    same = {"labels": {"round": "1"}, "machine": Machine(device="cpu")}
    assert train(tmp_path / "there", world, preferences, **same) == there, "another machine: skipped"
    train(tmp_path / "later", world, preferences, previous=trained, machine=ELSEWHERE)
    assert devices[1:] == [torch.device("cpu:0")]


def test_a_limit_beyond_the_context_or_below_every_pair_says_so(
    tmp_path: Path, world: dict[str, Path], preferences: Path
) -> None:
    with pytest.raises(ConfigError, match="context of 160"):
        train(tmp_path / "a", world, preferences, CONFIG.model_copy(update={"max_seq_len": 161}))
    with pytest.raises(ConfigError, match="at most 4 tokens"):
        train(tmp_path / "b", world, preferences, CONFIG.model_copy(update={"max_seq_len": 4}))


def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, trained: Path, world: dict[str, Path], preferences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at update 8 with a state from update 6, then run again."""
    config = CONFIG.model_copy(update={"loop": LOOP.model_copy(update={"checkpoint_every_steps": 3})})
    whole = train(tmp_path / "whole", world, preferences, config, labels={"round": "1"})
    original = RankingTask.micro_batches

    def cut(self: RankingTask, step: int):
        if step == 7:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(RankingTask, "micro_batches", cut)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", world, preferences, config, labels={"round": "1"})
    resumed = train(tmp_path / "cut", world, preferences, config, labels={"round": "1"})
    for name in ("model.safetensors", "held_out_scores.jsonl"):
        assert resumed.files[name] == whole.files[name]


def test_a_previous_reward_model_with_another_tokenizer_is_refused(
    tmp_path: Path, world: dict[str, Path], preferences: Path
) -> None:
    """Of the same size, it would be trained on ids that mean something else to it, and then pass for one of ours."""
    train_tokenizer(
        ["zebra quartz? jazz vex fjord."] * 9, tmp_path / "other.model", TokenizerConfig(vocab_size=300)
    )
    foreign = save_reward_model(tmp_path / "foreign", Tokenizer.load(tmp_path / "other.model"), seed=4)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        train(tmp_path / "later", world, preferences, previous=foreign)


def test_a_later_round_goes_on_from_the_round_before(
    trained: Path, tmp_path: Path, world: dict[str, Path], preferences: Path
) -> None:
    """At a rate of almost nothing the scores stay what the previous model's are; a chat start knows nothing yet."""
    still = RewardLoopConfig(
        optimizer=RewardOptimizerConfig(peak_lr=1e-12), batch_size=16, micro_batch_size=8, total_steps=5
    )
    config = CONFIG.model_copy(update={"loop": still})
    manifest = train(tmp_path / "later", world, preferences, config, previous=trained)
    assert manifest.metrics["accuracy"] == read_manifest(trained).metrics["accuracy"]
    assert "previous" in manifest.inputs
    before, after = (
        [record.chosen for record in read_records(folder / "held_out_scores.jsonl", ScoredPair)]
        for folder in (trained, tmp_path / "later")
    )
    assert after == pytest.approx(before, abs=1e-4)
