"""Rejection sampling (§3.2.3): K responses a prompt from the latest model, scored, and the best kept for fine-tuning.

It samples and selects; the fine-tuning is the supervised stage's.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.records import REWARD_ROLES, Sample, read_records, write_records
from puna.core.seeding import derive_seed
from puna.core.stage import Metrics, stage
from puna.inference import Completion, SamplingConfig
from puna.inference.chat_model import ChatModel
from puna.inference.reward_models import RewardModels
from puna.inference.sampled_tokens import check_sampled_by
from puna.rlhf.best_of_k import reward_by_k
from puna.rlhf.prompts import EncodedPrompt, longest, read_prompts
from puna.rlhf.rewards import ScoreConfig
from puna.rlhf.selection import above_quantile, best_of_each, group_by_prompt, ranked, ranking_scores

__all__ = ["RejectionSamplingConfig", "sample_candidates"]

SCORED_AT_ONCE = 32
"""Responses of similar length that a reward model reads together."""

ENOUGH_SELECTED = 0.9
"""Share of prompts with an answer that may be selected, below which a warning is given."""


class RejectionSamplingConfig(Settings):
    """How many responses, how sampled, and which are kept."""

    n_samples_per_prompt: int = Field(default=10, ge=1)
    """K. The paper's charts go to 100 and state none: our choice."""
    temperatures: tuple[float, ...] = Field(default=(1.2, 1.3), min_length=1)
    """Taken in turn by the K samples; best in [1.2, 1.3] for an RLHF model, re-tuned per iteration (§3.2.3)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus. Not stated: our choice."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response. Not stated: our choice."""
    score: ScoreConfig = ScoreConfig()
    """The ranking score: the same composite as PPO's. Our choice."""
    require_eos: bool = True
    """A response cut by length is never selected. Our choice."""
    min_quantile: float = Field(default=0.0, ge=0, lt=1)
    """Selected dialogs under this quantile of their scores are left out. Our choice: none."""


@stage("samples")
def sample_candidates(
    config: RejectionSamplingConfig,
    context: StageContext,
    *,
    model: Path,
    prompts: Path,
    reward_models: Mapping[str, Path],
    earlier: Sequence[Path] = (),
) -> Metrics:
    """Sample K responses per prompt, score them, and select the best of each prompt (§3.2.3).

    Writes samples.jsonl (this iteration's) and selected.jsonl (one dialog per prompt); the metrics hold reward_by_k of
    Figure 7.

    Args:
        model: The chat model to sample from, usually the latest; in the paper always the 70B.
        prompts: .jsonl file of Prompt, single- or multi-turn.
        reward_models: Folders by role, helpfulness and safety: the best there are now.
        earlier: Folders of earlier samples that compete too. They are scored anew, because scores of
            different reward models cannot be compared.
    """
    chat = ChatModel.load(model, device=context.device)
    rewards = RewardModels.load(reward_models, chat.tokenizer, device=context.device, roles=REWARD_ROLES)
    room = chat.max_seq_len - config.max_new_tokens
    encoded, n_too_long = read_prompts(prompts, chat.tokenizer, max_tokens=room)
    rewards.check_room(longest(encoded) + config.max_new_tokens)
    iterations = [_read_earlier(folder, chat, rewards) for folder in earlier]
    samples = _sample(config, chat, rewards, encoded, context)
    pooled = [sample for iteration in iterations for sample in _scored_anew(iteration, chat, rewards)]
    groups = group_by_prompt(itertools.chain(samples, pooled))
    best = best_of_each(groups, config.score, require_eos=config.require_eos)
    if len(best) < ENOUGH_SELECTED * len(groups):
        context.reporter.warn(
            f"rejection sampling: {len(groups) - len(best)} of {len(groups)} prompts have no finished answer and are "
            f"left out; raise max_new_tokens (now {config.max_new_tokens}), or set require_eos = false"
        )
    selected = above_quantile(best, config.min_quantile)
    write_records(context.folder / "samples.jsonl", samples)
    write_records(context.folder / "selected.jsonl", selected)
    return _metrics(config, samples) | {
        "n_prompts": len(encoded),
        "n_prompts_too_long": n_too_long,
        "n_pooled": len(pooled),
        "n_selected": len(selected),
        "n_selected_from_earlier": sum(d.meta["model"] != chat.fingerprint for d in selected),
    }


def _sample(
    config: RejectionSamplingConfig,
    chat: ChatModel,
    rewards: RewardModels,
    prompts: Sequence[EncodedPrompt],
    context: StageContext,
) -> list[Sample]:
    """K samples per prompt, prompt after prompt; each has its own seed, whatever else is sampled beside it."""
    k, n_temperatures = config.n_samples_per_prompt, len(config.temperatures)
    by_prompt: list[list[Sample]] = [[] for _ in prompts]
    for place, temperature in enumerate(config.temperatures):
        drawn = [(row, j) for row in range(len(prompts)) for j in range(place, k, n_temperatures)]
        seeds = [derive_seed(context.seed, "candidate", prompts[row].prompt.id, j) for row, j in drawn]
        sampling = SamplingConfig(
            temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
        )
        token_ids = [prompts[row].token_ids for row, _ in drawn]
        answers = chat.answer(token_ids, sampling, seeds=seeds, reporter=context.reporter)
        scores = rewards.score_answers(answers, max_batch_size=SCORED_AT_ONCE)
        for index, ((row, j), seed, answer) in enumerate(zip(drawn, seeds, answers, strict=True)):
            prompt = prompts[row].prompt
            by_prompt[row].append(
                Sample(
                    id=f"{prompt.id}-{j}",
                    prompt_id=prompt.id,
                    prompt=prompt.messages,
                    response=answer.text,
                    token_ids=tuple(answer.completion.token_ids),
                    logprobs=tuple(answer.completion.logprobs),
                    finish_reason=answer.finish_reason,
                    provenance=chat.provenance(sampling, seed),
                    guideline=prompt.guideline,
                    is_safety=prompt.is_safety,
                    scores={role: values[index] for role, values in scores.items()},
                    scored_by=rewards.fingerprints,
                )
            )
    return [sample for samples in by_prompt for sample in ranked(samples, config.score)]


def _read_earlier(folder: Path, chat: ChatModel, rewards: RewardModels) -> list[Sample]:
    """An earlier iteration's samples, refused before anything is sampled where today's models cannot read them."""
    samples = list(read_records(folder / "samples.jsonl", Sample))
    for sample in samples:
        check_sampled_by(
            chat.tokenizer, sample.token_ids, sample.response, where=f"{folder}, sample {sample.id}"
        )
    rewards.check_room(max((len(chat.render(s.prompt)) + len(s.token_ids) for s in samples), default=0))
    return samples


def _scored_anew(samples: Sequence[Sample], chat: ChatModel, rewards: RewardModels) -> list[Sample]:
    """An earlier iteration's samples with today's scores; their tokens are the ones that were sampled."""
    completions = [
        Completion(token_ids=list(s.token_ids), logprobs=list(s.logprobs), finish_reason=s.finish_reason)
        for s in samples
    ]
    prompts = [chat.render(sample.prompt) for sample in samples]
    scores = rewards.score(prompts, completions, max_batch_size=SCORED_AT_ONCE)
    return [
        sample.model_copy(
            update={
                "scores": {role: values[row] for role, values in scores.items()},
                "scored_by": rewards.fingerprints,
            }
        )
        for row, sample in enumerate(samples)
    ]


def _metrics(config: RejectionSamplingConfig, samples: Sequence[Sample]) -> dict[str, Any]:
    """Figure 7 in the paper's unit: scores after a sigmoid, between 0 and 1."""
    probs = torch.tensor(ranking_scores(samples, config.score)).sigmoid()
    per_prompt = probs.view(-1, config.n_samples_per_prompt)
    return {
        "n_samples": len(samples),
        "reward_by_k": reward_by_k(per_prompt.tolist()),
        "eos_rate": sum(sample.finish_reason == "eos" for sample in samples) / len(samples),
        "mean_response_tokens": sum(len(sample.token_ids) for sample in samples) / len(samples),
    }
