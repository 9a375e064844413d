"""Two responses to each prompt, from two model variants or two temperatures (§3.2.1)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.core.artifacts import read_manifest
from puna.core.errors import ConfigError
from puna.core.progress import Reporter
from puna.core.records import Prompt, Provenance
from puna.core.seeding import derive_seed, rng
from puna.human_feedback.config import PreferencesConfig
from puna.inference import Engine, SamplingConfig
from puna.model import load_model
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["Candidate", "SampledPair", "Variant", "fitting_prompts", "load_variants", "sample_pairs"]


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that annotators compare, ready to sample."""

    engine: Engine
    tokenizer: Tokenizer
    fingerprint: str
    version: str
    max_seq_len: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response and how it came about."""

    response: str
    provenance: Provenance
    finish_reason: str


@dataclass(frozen=True, slots=True)
class SampledPair:
    """What an annotator is shown; left and right are already shuffled."""

    prompt: Prompt
    number: int
    """Which pair of its prompt, from 0."""
    left: Candidate
    right: Candidate


@dataclass(frozen=True, slots=True)
class _Request:
    """A response to be sampled."""

    prompt: Prompt
    number: int
    side: int
    variant: int
    temperature: float

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.prompt.id, self.number, self.side)


def load_variants(models: Sequence[Path], config: PreferencesConfig) -> list[Variant]:
    """Load one or two model artifacts.

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
    variants = []
    for folder in models:
        model, tokenizer, manifest = load_model(folder), Tokenizer.load(folder), read_manifest(folder)
        variants.append(
            Variant(
                engine=Engine(model, tokenizer, max_batch_size=config.max_batch_size),
                tokenizer=tokenizer,
                fingerprint=manifest.fingerprint,
                version=manifest.labels.get("version", folder.name),
                max_seq_len=model.config.max_seq_len,
            )
        )
    return variants


def fitting_prompts(
    prompts: Sequence[Prompt], variants: Sequence[Variant], *, max_new_tokens: int
) -> list[Prompt]:
    """The prompts that leave every variant room for a whole response."""
    return [
        prompt
        for prompt in prompts
        if all(
            len(render_prompt(prompt.messages, v.tokenizer)) + max_new_tokens <= v.max_seq_len
            for v in variants
        )
    ]


def sample_pairs(
    variants: Sequence[Variant],
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
    requests = [
        request
        for prompt in prompts
        for number in range(config.n_pairs_per_prompt)
        for request in _requests(prompt, number, len(variants), config.temperatures, seed)
    ]
    found: dict[tuple[str, int, int], Candidate] = {}
    for variant, temperature in itertools.product(range(len(variants)), sorted(set(config.temperatures))):
        group = [r for r in requests if (r.variant, r.temperature) == (variant, temperature)]
        if group:
            found |= _sample(variants[variant], group, config, seed, reporter)
    return [
        _shuffled(prompt, number, found, seed)
        for prompt in prompts
        for number in range(config.n_pairs_per_prompt)
    ]


def _requests(
    prompt: Prompt, number: int, n_variants: int, temperatures: Sequence[float], seed: int
) -> tuple[_Request, _Request]:
    random_ = rng(seed, "temperatures", prompt.id, number)
    if n_variants == 1:
        first, second = random_.sample(sorted(set(temperatures)), 2)
    else:
        first, second = random_.choice(temperatures), random_.choice(temperatures)
    return _Request(prompt, number, 0, 0, first), _Request(prompt, number, 1, n_variants - 1, second)


def _sample(
    variant: Variant, group: Sequence[_Request], config: PreferencesConfig, seed: int, reporter: Reporter
) -> dict[tuple[str, int, int], Candidate]:
    temperature = group[0].temperature
    sampling = SamplingConfig(
        temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
    )
    seeds = [derive_seed(seed, "response", *request.key) for request in group]
    token_ids = [render_prompt(request.prompt.messages, variant.tokenizer) for request in group]
    completions = variant.engine.generate(token_ids, sampling, seeds=seeds, reporter=reporter)
    return {
        request.key: Candidate(
            response=variant.engine.text(completion),
            provenance=Provenance(
                model=variant.fingerprint,
                version=variant.version,
                temperature=temperature,
                top_p=config.top_p,
                seed=sample_seed,
            ),
            finish_reason=completion.finish_reason,
        )
        for request, completion, sample_seed in zip(group, completions, seeds, strict=True)
    }


def _shuffled(
    prompt: Prompt, number: int, found: Mapping[tuple[str, int, int], Candidate], seed: int
) -> SampledPair:
    """Which side a variant is shown on must not tell the annotator which variant it is."""
    sides = [found[prompt.id, number, side] for side in (0, 1)]
    rng(seed, "sides", prompt.id, number).shuffle(sides)
    return SampledPair(prompt, number, *sides)
