"""Two responses to each prompt, from two model variants or two temperatures (§3.2.1)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from puna.core.errors import ConfigError
from puna.core.progress import Reporter
from puna.core.records import FinishReason, Prompt, Provenance
from puna.core.seeding import derive_seed, rng
from puna.human_feedback.config import PreferencesConfig
from puna.inference import SamplingConfig
from puna.inference.chat_model import ChatModel

__all__ = ["Candidate", "SampledPair", "fitting_prompts", "load_variants", "sample_pairs"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response and how it came about."""

    response: str
    provenance: Provenance
    token_ids: tuple[int, ...]
    """As sampled."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class SampledPair:
    """What an annotator is shown; left and right are already shuffled."""

    prompt: Prompt
    number: int
    """Which pair of its prompt, from 0."""
    left: Candidate
    right: Candidate


@dataclass(frozen=True, slots=True)
class _Draw:
    """A response to be sampled."""

    prompt: Prompt
    number: int
    side: int
    variant: int
    temperature: float

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.prompt.id, self.number, self.side)


def load_variants(
    models: Sequence[Path], config: PreferencesConfig, *, device: torch.device
) -> list[ChatModel]:
    """Load the one or two models that annotators compare.

    Raises:
        ConfigError: not one or two models, or one model without two temperatures to tell its responses apart.
    """
    if len(models) not in (1, 2):
        fix = "Give the newest model, and its predecessor if there is one."
        raise ConfigError(where="models", expected="one or two", got=str(len(models)), fix=fix)
    if len(models) == 1 and len(set(config.temperatures)) < 2:
        fix = "Add a temperature, or a second model."
        raise ConfigError(
            where="temperatures", expected="two different ones", got=str(config.temperatures), fix=fix
        )
    return [ChatModel.load(folder, device=device, max_batch_size=config.max_batch_size) for folder in models]


def fitting_prompts(
    prompts: Sequence[Prompt], variants: Sequence[ChatModel], *, max_new_tokens: int
) -> list[Prompt]:
    """The prompts that leave every variant room for a whole response."""
    return [
        prompt
        for prompt in prompts
        if all(len(chat.render(prompt.messages)) + max_new_tokens <= chat.max_seq_len for chat in variants)
    ]


def sample_pairs(
    variants: Sequence[ChatModel],
    prompts: Sequence[Prompt],
    config: PreferencesConfig,
    *,
    seed: int,
    reporter: Reporter,
) -> list[SampledPair]:
    """Sample both responses of every pair; one call of the engine for each variant and temperature.

    Source: Llama 2 §3.2.1, two different model variants and varied temperature. With one variant the two
    temperatures differ (the paper's first rounds had no predecessor; our choice).
    """
    draws = [
        draw
        for prompt in prompts
        for number in range(config.n_pairs_per_prompt)
        for draw in _draws(prompt, number, len(variants), config.temperatures, seed)
    ]
    candidates: dict[tuple[str, int, int], Candidate] = {}
    for variant, temperature in itertools.product(range(len(variants)), sorted(set(config.temperatures))):
        group = [draw for draw in draws if (draw.variant, draw.temperature) == (variant, temperature)]
        if group:
            candidates |= _sample(variants[variant], group, config, seed, reporter)
    return [
        _shuffled(prompt, number, candidates, seed)
        for prompt in prompts
        for number in range(config.n_pairs_per_prompt)
    ]


def _draws(
    prompt: Prompt, number: int, n_variants: int, temperatures: Sequence[float], seed: int
) -> tuple[_Draw, _Draw]:
    random_ = rng(seed, "temperatures", prompt.id, number)
    if n_variants == 1:
        first, second = random_.sample(sorted(set(temperatures)), 2)
    else:
        first, second = random_.choice(temperatures), random_.choice(temperatures)
    return _Draw(prompt, number, 0, 0, first), _Draw(prompt, number, 1, n_variants - 1, second)


def _sample(
    chat: ChatModel, group: Sequence[_Draw], config: PreferencesConfig, seed: int, reporter: Reporter
) -> dict[tuple[str, int, int], Candidate]:
    temperature = group[0].temperature
    sampling = SamplingConfig(
        temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
    )
    seeds = [derive_seed(seed, "response", *draw.key) for draw in group]
    token_ids = [chat.render(draw.prompt.messages) for draw in group]
    answers = chat.answer(token_ids, sampling, seeds=seeds, reporter=reporter)
    return {
        draw.key: Candidate(
            response=answer.text,
            provenance=chat.provenance(sampling, sample_seed),
            token_ids=tuple(answer.completion.token_ids),
            finish_reason=answer.finish_reason,
        )
        for draw, answer, sample_seed in zip(group, answers, seeds, strict=True)
    }


def _shuffled(
    prompt: Prompt, number: int, candidates: Mapping[tuple[str, int, int], Candidate], seed: int
) -> SampledPair:
    """Which side a variant is shown on must not tell the annotator which variant it is."""
    sides = [candidates[prompt.id, number, side] for side in (0, 1)]
    rng(seed, "sides", prompt.id, number).shuffle(sides)
    return SampledPair(prompt, number, *sides)
