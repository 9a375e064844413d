"""PPO against the composite reward (§3.2.3): sample, score, estimate advantages, one step per mini-batch, repeat.

An iteration is a function of the weights it starts with, the seed and its number, so a run that was killed goes
back to its last checkpoint and continues to the same bits.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from puna.core.artifacts import StageContext
from puna.core.records import REWARD_ROLES
from puna.core.seeding import derive_seed, generator
from puna.core.stage import Metrics, stage
from puna.inference.chat_model import ChatModel
from puna.inference.reward_models import RewardModels
from puna.model import ScoreModel, Transformer, load_score_model, save_model
from puna.model.generation_config import read_generation_config
from puna.rlhf.diagnosis import diagnose
from puna.rlhf.experience import PPOModels, judge, learn_from
from puna.rlhf.held_out import EarlyStopping, evaluate
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.ppo_update import joint_optimizer, update
from puna.rlhf.prompts import EncodedPrompt, is_safety, longest, read_prompts
from puna.rlhf.rollout import sample
from puna.training.order import ShuffledOrder
from puna.training.precision import precision
from puna.training.resume import load_state, save_state

__all__ = ["PPOConfig", "train_ppo"]


@stage("model")
def train_ppo(
    config: PPOConfig,
    context: StageContext,
    *,
    policy: Path,
    reward_models: Mapping[str, Path],
    prompts: Path,
    held_out_prompts: Path,
) -> Metrics:
    """Train a policy with PPO and keep the one that was best on held-out prompts.

    Source: §3.2.3; what the paper leaves open (critic, advantages, stopping rule) is a setting that says so.

    Args:
        policy: The model to start from, and pi_0 of the KL penalty; in the paper a rejection-sampling checkpoint.
        reward_models: Folders by role: helpfulness and safety.
        prompts: .jsonl file of Prompt; is_safety marks prompts that may draw an unsafe answer.
        held_out_prompts: .jsonl file of other prompts, for early stopping only.
    """
    chat = ChatModel.load(policy, device=context.device)
    chat.tokenizer.check_can_be_saved()
    rewards = RewardModels.load(reward_models, chat.tokenizer, device=context.device, roles=REWARD_ROLES)
    room = chat.max_seq_len - config.max_new_tokens
    train, n_too_long = read_prompts(prompts, chat.tokenizer, max_tokens=room)
    held_out, _ = read_prompts(held_out_prompts, chat.tokenizer, max_tokens=room)
    rewards.check_room(max(longest(train), longest(held_out)) + config.max_new_tokens)
    models = PPOModels(
        policy=chat.transformer,
        reference=_frozen_copy(chat.transformer),
        critic=_new_critic(
            config,
            chat.transformer,
            reward_models["helpfulness"],
            device=context.device,
            seed=derive_seed(context.seed, "critic"),
        ),
        reward_models=rewards,
        engine=chat.engine,
    )
    trainer = _Trainer(config, models, train, held_out, context)
    metrics = trainer.run()
    save_model(trainer.best, context.folder, generation=read_generation_config(policy))
    chat.tokenizer.save(context.folder, max_seq_len=chat.max_seq_len)
    return metrics | {"n_prompts": len(train), "n_prompts_too_long": n_too_long}


def _new_critic(
    config: PPOConfig, policy: Transformer, reward_model: Path, *, device: torch.device, seed: int
) -> ScoreModel:
    """A trained trunk with a new head, so that the first values are near 0, the mean of whitened rewards.

    A reward model's own head speaks logits far from it, and an offset c of all values makes the last tokens of every
    response, </s> among them, look c worse than the ones before (docs/log.md).
    """
    if config.critic_init == "policy":
        trunk = copy.deepcopy(policy)
    else:
        trunk = load_score_model(reward_model, device=device).trunk
    return ScoreModel(trunk, seed=seed)


def _frozen_copy(model: Transformer) -> Transformer:
    return copy.deepcopy(model).requires_grad_(False)


@dataclass(slots=True)
class _Trainer:
    """The loop over iterations with its resumable state."""

    config: PPOConfig
    models: PPOModels
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    context: StageContext
    is_healthy: bool = True
    """The last iteration's numbers gave no reason for a diagnosis."""
    best: Transformer = field(init=False)
    """The policy to keep, once `run` is through."""

    def __post_init__(self) -> None:
        self.best = _frozen_copy(self.models.policy)

    def run(self) -> dict[str, Any]:
        """Iterate until patience or iterations run out."""
        config, context = self.config, self.context
        modules = nn.ModuleDict(
            {"policy": self.models.policy, "critic": self.models.critic, "best": self.best}
        )
        optimizer = joint_optimizer(self.models, config)
        resumed = load_state(context.state, model=modules, optimizer=optimizer)
        done = resumed.step if resumed else 0
        context.metrics.truncate_after(done if resumed else -1)
        stopping = EarlyStopping(**resumed.extra) if resumed else self._first_evaluation()
        order = ShuffledOrder(len(self.prompts), batch_size=config.batch_size, seed=context.seed)
        with context.reporter.track("PPO", config.max_iterations, "iteration", completed=done) as tracker:
            for iteration in range(done + 1, config.max_iterations + 1):
                if stopping.n_without_gain >= config.early_stopping.patience:
                    context.reporter.log(f"early stop: best was iteration {stopping.best_iteration}")
                    break
                metrics = self._iterate(optimizer, order.batch(iteration - 1), iteration)
                done = iteration
                is_last = iteration == config.max_iterations
                if is_last or iteration % config.early_stopping.evaluate_every_iterations == 0:
                    stopping = self._evaluate(stopping, iteration)
                if iteration % config.checkpoint_every_iterations == 0:
                    extra = stopping.state()
                    save_state(context.state, model=modules, optimizer=optimizer, step=iteration, extra=extra)
                tracker.advance(score=metrics["score"], kl=metrics["kl"], eos_rate=metrics["eos_rate"])
        return {
            "iterations": done,
            "best_iteration": stopping.best_iteration,
            "held_out_objective": stopping.best,
        }

    def _iterate(self, optimizer: torch.optim.Optimizer, rows: list[int], iteration: int) -> dict[str, float]:
        """One batch of prompts: sample, judge, update."""
        config, models, seed = self.config, self.models, self.context.seed
        batch = [self.prompts[row] for row in rows]
        seeds = [derive_seed(seed, "rollout", iteration, row) for row in range(len(batch))]
        n_rows = config.micro_batch_size
        with precision(models.policy, config.dtype):
            completions = sample(models.engine, batch, max_new_tokens=config.max_new_tokens, seeds=seeds)
            judged = judge(models, batch, completions, config.reward, n_rows=n_rows)
            experience = learn_from(models, judged, is_safety(batch), config)
        order = torch.randperm(len(batch), generator=generator(seed, "mini-batches", iteration))
        order = order.to(models.device)
        losses = update(
            models,
            optimizer,
            experience,
            config,
            order=order,
            iteration=iteration,
            speed=self.context.machine.speed,
        )
        # No mean reward: whitened scores have mean zero, so it would be the penalty again with a minus sign.
        penalty = {"kl_penalty": config.reward.kl_coef * judged.metrics["kl"]}
        metrics = penalty | judged.metrics | losses
        self.context.metrics.write(iteration, "train", **metrics)
        self._report(diagnose(metrics), iteration)
        return metrics

    def _report(self, messages: Sequence[str], iteration: int) -> None:
        """Say what is wrong when it starts, not at every iteration that it lasts."""
        if messages and self.is_healthy:
            self.context.reporter.log(f"PPO iteration {iteration}: {'; '.join(messages)}")
        self.is_healthy = not messages

    def _first_evaluation(self) -> EarlyStopping:
        metrics = self._held_out_metrics()
        self.context.metrics.write(0, "held_out", objective=0.0, **metrics)
        return EarlyStopping.start(metrics)

    def _evaluate(self, stopping: EarlyStopping, iteration: int) -> EarlyStopping:
        metrics = self._held_out_metrics()
        objective = stopping.objective(metrics, kl_coef=self.config.reward.kl_coef)
        self.context.metrics.write(iteration, "held_out", objective=objective, **metrics)
        after = stopping.after(objective, iteration)
        if after.best_iteration == iteration:
            self.best.load_state_dict(self.models.policy.state_dict())
        return after

    def _held_out_metrics(self) -> dict[str, float]:
        with precision(self.models.policy, self.config.dtype):
            return evaluate(self.models, self.held_out, self.config, seed=self.context.seed)
