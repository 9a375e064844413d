"""Safety context distillation, gated by the safety reward model (§4.2.4).

The model answers adversarial prompts with and without a safety preprompt; an answer given with it becomes
training data without it, and only where the safety reward model finds it the better one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import DataError
from puna.core.records import Dialog, Message, Prompt, Record, read_records, write_records
from puna.core.seeding import derive_seed, rng
from puna.core.stage import Metrics, stage
from puna.inference import SamplingConfig
from puna.inference.chat_model import Answer, ChatModel
from puna.inference.reward_models import RewardModels, as_probs
from puna.safety.preprompts import PrepromptConfig, choose_preprompt, with_preprompt

__all__ = ["DistillationConfig", "distill", "gain_histogram"]

N_HISTOGRAM_BINS = 40
"""Bars over gains from -1 to 1, about as many as Figure 16b has."""


class DistillationConfig(Settings):
    """How answers are drawn out and which are kept."""

    sampling: SamplingConfig = SamplingConfig()
    """Of both answers."""
    preprompts: PrepromptConfig = PrepromptConfig()
    """What stands before the prompt."""
    is_gated: bool = True
    """Keep an answer only where it raises the safety score (§4.2.4); False keeps all, for comparison."""


class Attempt(Record):
    """One prompt's two answers; scores are the safety reward model's probabilities for the bare prompt."""

    prompt_id: str
    risk_category: str | None = None
    preprompt_kind: str
    preprompt: str
    answer_without: str
    answer_with: str
    safety_without: float
    safety_with: float
    is_kept: bool

    @property
    def gain(self) -> float:
        """Of the preprompt."""
        return self.safety_with - self.safety_without


class _Case(NamedTuple):
    prompt: Prompt
    kind: str
    preprompt: str
    prefixed: tuple[Message, ...]


@stage("distillation_data")
def distill(
    config: DistillationConfig,
    context: StageContext,
    *,
    model: Path,
    prompts: Path,
    reward_models: Mapping[str, Path],
) -> Metrics:
    """Write the fine-tuning set of safety context distillation (§4.2.4).

    Writes dialogs.jsonl (without preprompts) and attempts.jsonl; the metrics hold the gain's histogram (Figure 16b).

    Args:
        model: The chat model that answers.
        prompts: JSON Lines of Prompt; only those with is_safety are used, because on helpful prompts the method
            degrades answers and breeds false refusals. The risk category chooses the template.
        reward_models: Folders by role; "safety" is used.
    """
    chat = ChatModel.load(model, device=context.device)
    rewards = RewardModels.load(reward_models, chat.tokenizer, device=context.device, roles=["safety"])
    given = list(read_records(prompts, Prompt))
    cases = [_case(prompt, config.preprompts, context.seed) for prompt in given if prompt.is_safety]
    usable = [case for case in cases if len(chat.render(case.prefixed)) <= chat.room(config.sampling)]
    if not usable:
        raise DataError(
            where=str(prompts),
            expected="adversarial prompts that leave room for an answer",
            got=f"{len(given)} prompts, {len(cases)} with is_safety, none short enough",
            fix="Give prompts that is_safety marks.",
        )
    rewards.check_room(
        max(len(chat.render(case.prompt.messages)) for case in usable) + config.sampling.max_new_tokens
    )
    attempts, dialogs = _attempt(config, usable, chat, rewards, context.seed)
    write_records(context.folder / "attempts.jsonl", attempts)
    write_records(context.folder / "dialogs.jsonl", dialogs)
    counts = {"n_not_adversarial": len(given) - len(cases), "n_prompts_too_long": len(cases) - len(usable)}
    return _metrics(attempts) | counts


def _case(prompt: Prompt, config: PrepromptConfig, seed: int) -> _Case:
    random_ = rng(seed, "preprompt", prompt.id)
    kind, text = choose_preprompt(config, prompt.risk_category, random_)
    return _Case(prompt, kind, text, with_preprompt(prompt.messages, text, config.place))


def _attempt(
    config: DistillationConfig, cases: Sequence[_Case], chat: ChatModel, rewards: RewardModels, seed: int
) -> tuple[list[Attempt], list[Dialog]]:
    """Answer with and without the preprompt; the reward model reads both answers after the bare prompt."""
    bare = [chat.render(case.prompt.messages) for case in cases]
    prefixed = [chat.render(case.prefixed) for case in cases]
    names = [case.prompt.id for case in cases]
    seeds = {way: [derive_seed(seed, way, name) for name in names] for way in ("without", "with")}
    without = chat.answer(bare, config.sampling, seeds=seeds["without"])
    with_preprompt = chat.answer(prefixed, config.sampling, seeds=seeds["with"])
    before = as_probs(rewards.score_answers(without, prompts=bare)["safety"])
    after = as_probs(rewards.score_answers(with_preprompt, prompts=bare)["safety"])
    attempts = []
    for case, plain, safer, low, high in zip(cases, without, with_preprompt, before, after, strict=True):
        is_kept = safer.is_finished and (not config.is_gated or high > low)
        attempts.append(_record(case, plain, safer, low, high, is_kept))
    dialogs = [
        _dialog(case, attempt, safer)
        for case, attempt, safer in zip(cases, attempts, with_preprompt, strict=True)
        if attempt.is_kept
    ]
    return attempts, dialogs


def _record(case: _Case, plain: Answer, safer: Answer, low: float, high: float, is_kept: bool) -> Attempt:
    return Attempt(
        prompt_id=case.prompt.id,
        risk_category=case.prompt.risk_category,
        preprompt_kind=case.kind,
        preprompt=case.preprompt,
        answer_without=plain.text,
        answer_with=safer.text,
        safety_without=low,
        safety_with=high,
        is_kept=is_kept,
    )


def _dialog(case: _Case, attempt: Attempt, safer: Answer) -> Dialog:
    """The safer answer to the bare prompt: what the preprompt did is now in the weights' target."""
    return Dialog(
        id=attempt.prompt_id,
        messages=(*case.prompt.messages, Message(role="assistant", content=safer.text)),
        train_on="last",
        guideline=case.prompt.guideline,
        answer_token_ids=tuple(safer.completion.token_ids),
        meta={"risk_category": attempt.risk_category, "gain": attempt.gain},
    )


def gain_histogram(gains: Sequence[float], n_bins: int) -> dict[str, list[float] | list[int]]:
    """Counts of gains in equal bins from -1 to 1, as in Figure 16b; the last bin holds its upper edge."""
    places = Counter(min(n_bins - 1, int((gain + 1) / 2 * n_bins)) for gain in gains)
    edges = [-1 + 2 * i / n_bins for i in range(n_bins + 1)]
    return {"edges": edges, "counts": [places[i] for i in range(n_bins)]}


def _metrics(attempts: Sequence[Attempt]) -> dict[str, Any]:
    gains = [attempt.gain for attempt in attempts]
    kept = [attempt.gain for attempt in attempts if attempt.is_kept]
    with_kind = {
        kind: median(a.safety_with for a in attempts if a.preprompt_kind == kind)
        for kind in sorted({a.preprompt_kind for a in attempts})
    }
    return {
        "n_prompts": len(attempts),
        "n_kept": len(kept),
        "kept_fraction": len(kept) / len(attempts),
        "mean_gain": fmean(gains),
        "mean_gain_kept": fmean(kept) if kept else None,
        "median_safety": {"without": median(a.safety_without for a in attempts)} | with_kind,
        "gain_histogram": gain_histogram(gains, N_HISTOGRAM_BINS),
    }
