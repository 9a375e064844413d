"""After gradient steps the sampler draws from the policy they made."""

from collections.abc import Sequence

import pytest
import torch

from puna.core.records import Message, Prompt
from puna.inference import Engine
from puna.inference.reward_models import RewardModels
from puna.model import ModelConfig, ScoreModel, Transformer
from puna.rlhf import PPOConfig
from puna.rlhf.experience import Judged, PPOModels, learn_from
from puna.rlhf.ppo_update import joint_optimizer, update
from puna.rlhf.prompts import EncodedPrompt
from puna.rlhf.rollout import lay_out, response_logprobs, sample
from puna.training.optimizer import OptimizerConfig


class Ids:
    """A tokenizer whose text is never looked at; no token ends a response."""

    stop_ids = (-1,)

    def decode(self, ids: Sequence[int]) -> str:
        return ""


def tiny_models() -> PPOModels:
    config = ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=48, max_seq_len=128
    )
    policy, reference = Transformer(config, seed=1), Transformer(config, seed=1)
    critic = ScoreModel(Transformer(config, seed=2))
    return PPOModels(
        policy=policy,
        reference=reference,
        critic=critic,
        reward_models=RewardModels({"helpfulness": critic, "safety": critic}, eos_id=0),
        engine=Engine(policy, Ids()),
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_next_responses_are_the_new_policy_s(dtype: str) -> None:
    """Old keys of a shared prompt (float32) or old copies of the weights (bfloat16) would give other log-probs."""
    models = tiny_models()
    config = PPOConfig(
        batch_size=4,
        mini_batch_size=4,
        dtype=dtype,
        policy_optimizer=OptimizerConfig(peak_lr=1e-2),
        critic_optimizer=OptimizerConfig(peak_lr=1e-2),
    )
    ids = [(3 + 7 * i) % 40 for i in range(100)]  # more than a block of the cache
    prompts = [EncodedPrompt(Prompt(id="p", messages=(Message(role="user", content="?"),)), ids)] * 4
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        completions = sample(models.engine, prompts, max_new_tokens=8, seeds=range(4))
        rollout = lay_out([ids] * 4, completions, device=models.device)
        with torch.no_grad():
            logprobs = response_logprobs(models.policy, rollout)
        judged = Judged(rollout, torch.arange(4.0), logprobs, torch.zeros_like(logprobs), {})
        experience = learn_from(models, judged, torch.zeros(4, dtype=torch.bool), config)
    update(models, joint_optimizer(models, config), experience, config, order=torch.arange(4), iteration=1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        after = sample(models.engine, prompts, max_new_tokens=8, seeds=range(4))
        assert after == sample(Engine(models.policy, Ids()), prompts, max_new_tokens=8, seeds=range(4))
    assert after != completions
