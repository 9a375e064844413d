"""Rejection sampling (§3.2.3): K responses a prompt from the latest model, scored, and the best kept for fine-tuning.

It samples and selects; the fine-tuning is the supervised stage's.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from puna.core.artifacts import Manifest, StageContext, read_manifest, run_stage
from puna.core.config import Settings
from puna.core.devices import pick_device
from puna.core.progress import Reporter
from puna.core.records import Provenance, Sample, read_records, write_records
from puna.core.seeding import derive_seed
from puna.inference import Completion, Engine, SamplingConfig
from puna.model import load_model
from puna.rlhf.best_of_k import reward_by_k
from puna.rlhf.prompts import EncodedPrompt, read_prompts
from puna.rlhf.reward_models import RewardModels, load_reward_models, score_completions
from puna.rlhf.rewards import ScoreConfig
from puna.rlhf.selection import above_quantile, best_of_each, group_by_prompt, ranking_scores
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["RejectionSamplingConfig", "sample_candidates"]


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
    pool: Literal["latest", "all"] = "latest"
    """Samples that compete: this iteration's (the paper's way through V3), or all earlier ones' too (after)."""
    require_eos: bool = True
    """A response cut by length is never selected. Our choice."""
    min_quantile: float = Field(default=0.0, ge=0, lt=1)
    """Selected dialogs under this quantile of their scores are left out. Our choice: none."""
    device: str = "auto"
    """Where the models run."""


def sample_candidates(
    config: RejectionSamplingConfig,
    *,
    model: Path,
    prompts: Path,
    reward_models: Mapping[str, Path],
    out: Path,
    seed: int,
    reporter: Reporter,
    labels: Mapping[str, str] | None = None,
    earlier: Sequence[Path] = (),
) -> Manifest:
    """Sample, score and select.

    Args:
        model: The latest model; in the paper always the 70B, whose selection also trains the smaller ones.
        prompts: JSON Lines of Prompt, single- or multi-turn.
        reward_models: Folders by role: the best ones there are now.
        earlier: Samples artifacts of earlier iterations, pooled when the settings say so; they are scored anew,
            because scores of different reward models cannot be compared.
    Returns:
        Manifest of the samples artifact: samples.jsonl (this iteration's), selected.jsonl (one dialog a prompt)
        and the metrics, with reward_by_k of Figure 7.
    """
    pooled = tuple(earlier) if config.pool == "all" else ()

    def build(context: StageContext) -> dict[str, Any]:
        return _build(config, context, model, prompts, reward_models, pooled)

    inputs: dict[str, Path | Sequence[Path]] = {"model": model, "prompts": prompts, "earlier": pooled}
    inputs |= {f"reward_model_{role}": folder for role, folder in reward_models.items()}
    return run_stage(
        out,
        kind="samples",
        config=config,
        inputs=inputs,
        seed=seed,
        build=build,
        labels=labels,
        reporter=reporter,
    )


def _build(
    config: RejectionSamplingConfig,
    context: StageContext,
    model: Path,
    prompts: Path,
    reward_models: Mapping[str, Path],
    pooled: Sequence[Path],
) -> dict[str, Any]:
    tokenizer, device = Tokenizer.load(model), pick_device(config.device)
    judges = load_reward_models(reward_models, tokenizer, device=device)
    transformer = load_model(model, device=device)
    room = transformer.config.max_seq_len - config.max_new_tokens
    encoded, n_too_long = read_prompts(prompts, tokenizer, max_tokens=room)
    manifest = read_manifest(model)
    version = manifest.labels.get("version", "")
    source = Provenance(model=manifest.fingerprint, version=version, temperature=0, top_p=0, seed=0)
    samples = _sample(config, Engine(transformer, tokenizer), judges, encoded, source, tokenizer, context)
    old = [_rescored(folder, judges, tokenizer) for folder in pooled]
    groups = group_by_prompt(itertools.chain(samples, *old))
    best = best_of_each(groups, config.score, require_eos=config.require_eos)
    selected = above_quantile(best, config.min_quantile)
    write_records(context.folder / "samples.jsonl", samples)
    write_records(context.folder / "selected.jsonl", selected)
    return _metrics(config, samples) | {
        "n_prompts": len(encoded),
        "n_prompts_too_long": n_too_long,
        "n_pooled": sum(len(part) for part in old),
        "n_selected": len(selected),
        "n_selected_from_earlier": sum(d.meta["model"] != manifest.fingerprint for d in selected),
    }


def _sample(
    config: RejectionSamplingConfig,
    engine: Engine,
    judges: RewardModels,
    prompts: Sequence[EncodedPrompt],
    source: Provenance,
    tokenizer: Tokenizer,
    context: StageContext,
) -> list[Sample]:
    """K samples a prompt, prompt after prompt; each has a seed of its own, whatever else is sampled with it."""
    k = config.n_samples_per_prompt
    found: list[list[Sample]] = [[] for _ in prompts]
    for place, temperature in enumerate(config.temperatures):
        requests = [
            (row, j) for row in range(len(prompts)) for j in range(place, k, len(config.temperatures))
        ]
        seeds = [derive_seed(context.seed, "candidate", prompts[row].prompt.id, j) for row, j in requests]
        token_ids = [prompts[row].token_ids for row, _ in requests]
        sampling = SamplingConfig(
            temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
        )
        completions = engine.generate(token_ids, sampling, seeds=seeds, reporter=context.reporter)
        scores = score_completions(judges, token_ids, completions, eos_id=tokenizer.eos_id)
        for index, ((row, _), seed, completion) in enumerate(zip(requests, seeds, completions, strict=True)):
            how = source.model_copy(update={"temperature": temperature, "top_p": config.top_p, "seed": seed})
            by_role = {role: values[index] for role, values in scores.items()}
            found[row].append(_record(prompts[row], completion, engine.text(completion), how, by_role))
    return list(itertools.chain.from_iterable(found))


def _record(
    prompt: EncodedPrompt, completion: Completion, text: str, how: Provenance, scores: dict[str, float]
) -> Sample:
    return Sample(
        prompt_id=prompt.prompt.id,
        prompt=prompt.prompt.messages,
        response=text,
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(completion.logprobs),
        finish_reason=completion.finish_reason,
        provenance=how,
        domain=prompt.prompt.domain,
        scores=scores,
    )


def _rescored(folder: Path, judges: RewardModels, tokenizer: Tokenizer) -> list[Sample]:
    """An earlier iteration's samples with today's scores; their tokens are the ones that were sampled."""
    samples = list(read_records(folder / "samples.jsonl", Sample))
    token_ids = [render_prompt(sample.prompt, tokenizer) for sample in samples]
    completions = [
        Completion(token_ids=list(s.token_ids), logprobs=list(s.logprobs), finish_reason=s.finish_reason)
        for s in samples
    ]
    scores = score_completions(judges, token_ids, completions, eos_id=tokenizer.eos_id)
    return [
        sample.model_copy(update={"scores": {role: values[row] for role, values in scores.items()}})
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
