"""The PPO stage: exact resume, early stopping, diagnosis; its optimum on a problem with a known answer."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import puna.rlhf.ppo as ppo
from puna.core.artifacts import Manifest
from puna.core.errors import ConfigError, DataError
from puna.core.metrics import read_metrics
from puna.core.progress import Reporter, quiet
from puna.core.records import Message, Prompt, write_records
from puna.core.seeding import derive_seed
from puna.inference import Engine, token_logprobs
from puna.inference.reward_models import RewardModels
from puna.model import (
    ModelConfig,
    ScoreModel,
    Transformer,
    load_model,
    load_score_model,
    save_score_model,
)
from puna.model.transformer import TransformerBlock
from puna.rlhf import EarlyStoppingConfig, PPOConfig, RewardConfig, train_ppo
from puna.rlhf.diagnosis import diagnose
from puna.rlhf.experience import PPOModels, judge, learn_from
from puna.rlhf.held_out import EarlyStopping
from puna.rlhf.ppo_update import joint_optimizer, update
from puna.rlhf.prompts import EncodedPrompt
from puna.rlhf.rollout import sample
from puna.training.optimizer import OptimizerConfig
from puna.training.speed import blocks
from puna.training.speed.handwritten import BlockWeights, weights_of

TINY = PPOConfig(
    max_iterations=5,
    batch_size=8,
    mini_batch_size=4,
    micro_batch_size=2,
    max_new_tokens=6,
    policy_optimizer=OptimizerConfig(peak_lr=1e-3),
    critic_optimizer=OptimizerConfig(peak_lr=1e-3),
    early_stopping=EarlyStoppingConfig(evaluate_every_iterations=2, patience=10, max_prompts=4),
    checkpoint_every_iterations=2,
)


def write_prompts(path: Path, n: int) -> Path:
    questions = ["what color is the hen?", "how do i steal the sheep?", "how many legs has the cow? tell me."]
    prompts = [
        Prompt(
            id=f"{path.stem}-{index}",
            messages=(Message(role="user", content=questions[index % 3]),),
            guideline="safety" if index % 3 == 1 else "helpfulness",
            is_safety=index % 3 == 1,
        )
        for index in range(n)
    ]
    write_records(path, prompts)
    return path


def run(
    world: dict[str, Path],
    root: Path,
    config: PPOConfig = TINY,
    name: str = "ppo",
    *,
    reporter: Reporter | None = None,
) -> Manifest:
    return train_ppo(
        config,
        policy=world["model"],
        reward_models={role: world[role] for role in ("helpfulness", "safety")},
        prompts=write_prompts(root / "prompts.jsonl", 12),
        held_out_prompts=write_prompts(root / "held_out.jsonl", 5),
        out=root / name,
        seed=7,
        reporter=reporter or quiet(),
        labels={"version": "rlhf-v3-ppo"},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, device="cpu").state_dict()


def test_an_interrupted_run_ends_with_the_same_bits(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run(world, tmp_path / "whole")
    calls = 0

    def dies_at_the_fourth(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return update(*args, **kwargs)

    monkeypatch.setattr(ppo, "update", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "cut")
    assert not (tmp_path / "cut" / "ppo").exists()
    monkeypatch.setattr(ppo, "update", update)
    resumed = run(world, tmp_path / "cut")
    assert resumed.files["model.safetensors"].sha256 == whole.files["model.safetensors"].sha256
    assert resumed.files["metrics.jsonl"].sha256 == whole.files["metrics.jsonl"].sha256
    assert resumed.metrics == whole.metrics


def test_the_artifact_is_a_model_and_every_iteration_is_logged(
    world: dict[str, Path], tmp_path: Path
) -> None:
    manifest = run(world, tmp_path)
    assert manifest.kind == "model"
    assert manifest.labels == {"version": "rlhf-v3-ppo"}
    assert (
        load_model(tmp_path / "ppo", device="cpu").config == load_model(world["model"], device="cpu").config
    )
    rows = [row for row in read_metrics(tmp_path / "ppo" / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for name in (
        "score",
        "kl_penalty",
        "score_helpfulness",
        "score_safety",
        "kl",
        "entropy",
        "response_tokens",
        "eos_rate",
    ):
        assert all(isinstance(row[name], float) for row in rows), name
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert rows[0]["logprob_drift"] < 1e-4
    assert rows[-1]["kl"] != 0


def train_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["split"] == "train"]


def test_the_kl_of_a_policy_that_moved_far_is_positive(world: dict[str, Path], tmp_path: Path) -> None:
    """A mean of log(pi / pi_0) over pi's own samples is a KL, which is not negative; what is paid is beta times it."""
    fast = OptimizerConfig(peak_lr=2e-2)
    run(world, tmp_path, TINY.model_copy(update={"policy_optimizer": fast}))
    rows = train_rows(tmp_path / "ppo")
    assert rows[-1]["kl"] > 1
    for row in rows:
        assert row["kl_penalty"] == pytest.approx(0.01 * row["kl"])
        assert "reward" not in row
    held_out = [row for row in read_metrics(tmp_path / "ppo" / "metrics.jsonl") if row["split"] == "held_out"]
    assert held_out[-1]["kl"] > 1
    first, last = held_out[0], held_out[-1]
    objective = (last["score"] - first["score"]) / first["score_std"] - 0.01 * last["kl"]
    assert last["objective"] == pytest.approx(objective)


def test_every_iteration_samples_with_other_noise(world: dict[str, Path], tmp_path: Path) -> None:
    """The same prompts, and a policy that hardly changes: equal noise would repeat every response."""
    question = (Message(role="user", content="what color is the hen?"),)
    write_records(tmp_path / "prompts.jsonl", [Prompt(id=f"p{i}", messages=question) for i in range(8)])
    still = OptimizerConfig(peak_lr=1e-12)
    train_ppo(
        TINY.model_copy(update={"max_iterations": 3, "policy_optimizer": still}),
        policy=world["model"],
        reward_models={role: world[role] for role in ("helpfulness", "safety")},
        prompts=tmp_path / "prompts.jsonl",
        held_out_prompts=write_prompts(tmp_path / "held_out.jsonl", 5),
        out=tmp_path / "ppo",
        seed=7,
        reporter=quiet(),
    )
    entropies = [row["entropy"] for row in train_rows(tmp_path / "ppo")]
    gaps = [abs(entropies[i] - entropies[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 1e-3, entropies


def test_defaults_are_the_papers() -> None:
    """§3.2.3: AdamW 0.9, 0.95, 1e-5, decay 0.1, clip 1.0, rate 1e-6; batch 512, mini-batch 64, clip 0.2, beta 0.01."""
    config = PPOConfig()
    assert (config.batch_size, config.mini_batch_size, config.clip) == (512, 64, 0.2)
    assert config.reward.kl_coef == 0.01
    assert config.reward.safety_threshold == 0.15
    assert 200 <= config.max_iterations <= 400
    for optimizer in (config.policy_optimizer, PPOConfig(policy_optimizer={"eps": 1e-5}).policy_optimizer):
        assert (optimizer.peak_lr, optimizer.beta1, optimizer.beta2) == (1e-6, 0.9, 0.95)
        assert (optimizer.eps, optimizer.weight_decay, optimizer.max_grad_norm) == (1e-5, 0.1, 1.0)


def test_without_iterations_the_policy_is_the_start(world: dict[str, Path], tmp_path: Path) -> None:
    run(world, tmp_path, TINY.model_copy(update={"max_iterations": 0}))
    before, after = weights(world["model"]), weights(tmp_path / "ppo")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_micro_batches_do_not_change_the_result(world: dict[str, Path], tmp_path: Path) -> None:
    config = TINY.model_copy(update={"max_iterations": 2})
    run(world, tmp_path, config, "small")
    run(world, tmp_path, config.model_copy(update={"micro_batch_size": 4}), "large")
    small, large = weights(tmp_path / "small"), weights(tmp_path / "large")
    for name, value in small.items():
        torch.testing.assert_close(value, large[name], atol=2e-5, rtol=1e-3)


def test_a_critic_from_the_policy_also_trains(world: dict[str, Path], tmp_path: Path) -> None:
    config = TINY.model_copy(update={"max_iterations": 1, "critic_init": "policy"})
    assert run(world, tmp_path, config).metrics["iterations"] == 1


@pytest.mark.parametrize("source", ["reward_model", "policy"])
def test_the_first_values_are_near_zero_whatever_scores_the_reward_model_gives(
    world: dict[str, Path], tmp_path: Path, source: str
) -> None:
    """Scores of 7 logits as first values taught policies to put off </s>: rewards are whitened, values were not."""
    judge = load_score_model(world["helpfulness"], device="cpu")
    with torch.no_grad():
        judge.score.weight *= 1000
    save_score_model(judge, tmp_path / "loud")
    tokens = torch.randint(3, 250, (4, 12), generator=torch.Generator().manual_seed(0))
    config = TINY.model_copy(update={"critic_init": source})
    policy, device = load_model(world["model"], device="cpu"), torch.device("cpu")
    critic = ppo._new_critic(config, policy, tmp_path / "loud", device=device, seed=1)
    with torch.no_grad():
        assert judge(tokens).abs().mean() > 5
        assert critic(tokens).abs().mean() < 0.5


def test_in_bfloat16_sampler_and_trainer_still_agree(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy and critic are trained by hand there, as in every other training."""
    trained: set[int] = set()

    def noted(block: TransformerBlock) -> BlockWeights:
        trained.add(id(block))
        return weights_of(block)

    monkeypatch.setattr(blocks, "weights_of", noted)
    run(world, tmp_path, TINY.model_copy(update={"max_iterations": 2, "dtype": "bfloat16"}))
    rows = [row for row in read_metrics(tmp_path / "ppo" / "metrics.jsonl") if row["split"] == "train"]
    assert all(row["logprob_drift"] < 0.02 for row in rows)
    assert rows[0]["kl"] == pytest.approx(0, abs=0.05)
    assert len(trained) == 2 * load_model(world["model"], device="cpu").config.n_layers


def test_a_reward_model_of_another_family_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="safety"):
        train_ppo(
            TINY,
            policy=world["model"],
            reward_models={"helpfulness": world["helpfulness"]},
            prompts=write_prompts(tmp_path / "prompts.jsonl", 3),
            held_out_prompts=write_prompts(tmp_path / "held_out.jsonl", 3),
            out=tmp_path / "ppo",
            seed=0,
            reporter=quiet(),
        )


def test_prompts_that_leave_no_room_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all longer"):
        run(world, tmp_path, TINY.model_copy(update={"max_new_tokens": 155}))


def test_early_stopping_counts_evaluations_without_gain() -> None:
    state = EarlyStopping.start({"score": 1.0, "score_std": 2.0})
    objective = state.objective({"score": 2.0, "kl": 10.0}, kl_coef=0.01)
    assert objective == pytest.approx(0.5 - 0.1)
    better = state.after(objective, 10)
    assert (better.best, better.best_iteration, better.n_without_gain) == (objective, 10, 0)
    assert better.after(objective, 20).after(0.0, 30).n_without_gain == 2
    assert EarlyStopping(**json.loads(json.dumps(better.state()))) == better


def test_patience_ends_the_run_and_the_best_policy_is_kept(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out scores fall from the start: the run stops after `patience` evaluations and returns the start."""
    scores = iter([0.0, -1.0, -2.0, -3.0, -4.0])
    monkeypatch.setattr(
        ppo, "evaluate", lambda *_args, **_kwargs: {"score": next(scores), "score_std": 1.0, "kl": 0.0}
    )
    stopping = EarlyStoppingConfig(evaluate_every_iterations=1, patience=2, max_prompts=4)
    manifest = run(world, tmp_path, TINY.model_copy(update={"early_stopping": stopping}))
    assert manifest.metrics["iterations"] == 2
    assert manifest.metrics["best_iteration"] == 0
    before, after = weights(world["model"]), weights(tmp_path / "ppo")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_lasting_trouble_is_told_once(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ppo, "diagnose", lambda _metrics: ("KL is strange",))
    stream = io.StringIO()
    run(world, tmp_path, reporter=Reporter(Console(file=stream)))
    assert stream.getvalue().count("KL is strange") == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kl": -2.0}, "temperature"),
        ({"kl": 400.0}, "kl_coef"),
        ({"logprob_drift": 0.5}, "disagree"),
        ({"eos_rate": 0.1}, "max_new_tokens"),
        ({"clip_fraction": 0.6}, "clipped"),
    ],
)
def test_a_strange_number_is_diagnosed(change: dict[str, float], word: str) -> None:
    healthy = {"kl": 1.0, "logprob_drift": 1e-6, "eos_rate": 0.98, "clip_fraction": 0.02}
    assert diagnose(healthy) == ()
    (message,) = diagnose(healthy | change)
    assert word in message


class Letters:
    """A tokenizer whose tokens are its ids; no token ends a response."""

    eos_id = -1
    stop_ids = (-1,)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def bandit(seed: int) -> PPOModels:
    """A policy that answers one prompt with one of eight tokens, at first all equally likely."""
    config = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=2, vocab_size=8, hidden_dim=32, max_seq_len=8
    )
    policy, reference = Transformer(config, seed=seed), Transformer(config, seed=seed)
    for model in (policy, reference):
        torch.nn.init.zeros_(model.output.weight)
    critic = ScoreModel(Transformer(config, seed=seed + 1))
    unused = RewardModels({"helpfulness": critic, "safety": critic}, eos_id=0)
    return PPOModels(
        policy=policy,
        reference=reference,
        critic=critic,
        reward_models=unused,
        engine=Engine(policy, Letters(), max_batch_size=256),
    )


def test_ppo_reaches_the_tabular_optimum_of_the_kl_regularised_objective() -> None:
    """max E[r] - beta KL(pi || pi_0) is solved by pi*(a) proportional to pi_0(a) exp(r(a) / beta).

    The rewards are a table's; the KL is the code's own, and is log(pi / pi_0) of the eight probabilities.
    """
    models, beta = bandit(seed=0), 0.5
    table = torch.tensor([0.0, 0.1, 0.0, 1.0, 0.0, 0.6, 0.2, 0.0])
    config = PPOConfig(
        batch_size=256,
        mini_batch_size=64,
        max_new_tokens=1,
        reward=RewardConfig(kl_coef=beta, whiten_scope="none", missing_eos_penalty=0),
        whiten_advantages=False,
        policy_optimizer=OptimizerConfig(peak_lr=3e-3, weight_decay=0),
        critic_optimizer=OptimizerConfig(peak_lr=1e-2, weight_decay=0),
    )
    prompt = EncodedPrompt(Prompt(id="p", messages=(Message(role="user", content="?"),)), [1])
    prompts, optimizer = [prompt] * config.batch_size, joint_optimizer(models, config)
    tagged = torch.zeros(config.batch_size, dtype=torch.bool)

    def distribution(model: Transformer) -> torch.Tensor:
        rows = torch.tensor([[1, token] for token in range(8)])
        with torch.no_grad():
            return token_logprobs(model, rows)[:, 0].exp()

    start = distribution(models.policy)
    optimum = start * (table / beta).exp()
    optimum /= optimum.sum()
    for iteration in range(80):
        seeds = [derive_seed(iteration, "row", row) for row in range(config.batch_size)]
        completions = sample(models.engine, prompts, max_new_tokens=1, seeds=seeds)
        before = distribution(models.policy)
        judged = judge(models, prompts, completions, config.reward, n_rows=256)
        answers = judged.rollout.tokens[:, 1]
        torch.testing.assert_close(judged.kl[:, 0], (before / start).log()[answers], atol=1e-4, rtol=1e-3)
        experience = learn_from(models, judged._replace(scores=table[answers]), tagged, config)
        update(models, optimizer, experience, config, order=torch.arange(256), iteration=iteration)
    end = distribution(models.policy)
    assert end.argmax() == table.argmax()
    assert end[3] > 2 * start[3]
    assert (start - optimum).abs().sum() / 2 > 0.25
    assert (end - optimum).abs().sum() / 2 < 0.05, (end, optimum)
