"""From scored samples to fine-tuning data: the best response of each prompt (§3.2.3)."""

from collections.abc import Iterable, Sequence

import torch

from puna.core.records import Dialog, Message, Sample
from puna.inference.finish import is_finished
from puna.rlhf.rewards import ScoreConfig, composite_score, without_eos

__all__ = ["above_quantile", "best_of_each", "group_by_prompt", "ranked", "ranking_scores"]


def ranking_scores(samples: Sequence[Sample], config: ScoreConfig) -> list[float]:
    """Logits to rank by. How the two scores combine is not stated for ranking: we use PPO's R_c."""
    if not samples:
        return []
    helpfulness = torch.tensor([sample.scores["helpfulness"] for sample in samples])
    safety = torch.tensor([sample.scores["safety"] for sample in samples])
    is_safety = torch.tensor([sample.is_safety for sample in samples])
    ended = torch.tensor([is_finished(sample.finish_reason) for sample in samples])
    scores = composite_score(helpfulness, safety, is_safety, threshold=config.safety_threshold)
    return without_eos(scores, ended, config).tolist()


def ranked(samples: Sequence[Sample], config: ScoreConfig) -> list[Sample]:
    """The samples of one prompt in their order, each with its rank by the ranking score; of equals the first leads."""
    scores = ranking_scores(samples, config)
    best_first = sorted(range(len(samples)), key=lambda row: -scores[row])
    rank_of = {row: rank for rank, row in enumerate(best_first, start=1)}
    return [sample.model_copy(update={"rank": rank_of[row]}) for row, sample in enumerate(samples)]


def group_by_prompt(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Samples of the same prompt together, whichever iteration they come from; first seen, first."""
    groups: dict[tuple[str, tuple[Message, ...]], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.prompt_id, sample.prompt), []).append(sample)
    return list(groups.values())


def best_of_each(
    groups: Iterable[Sequence[Sample]], config: ScoreConfig, *, require_eos: bool
) -> list[Dialog]:
    """One dialog a prompt, answered by its best response; of equals the first.

    Args:
        require_eos: Responses cut by length cannot win; a prompt without any other is left out.
    """
    dialogs = []
    for group in groups:
        eligible = [s for s in group if s.response and (is_finished(s.finish_reason) or not require_eos)]
        if eligible:
            scores = ranking_scores(eligible, config)
            winner = max(range(len(eligible)), key=scores.__getitem__)
            dialogs.append(_dialog(eligible[winner], scores[winner], n_candidates=len(group)))
    return dialogs


def above_quantile(dialogs: Sequence[Dialog], quantile: float) -> list[Dialog]:
    """The dialogs whose score reaches this quantile of all; 0 keeps every one."""
    if not dialogs or quantile == 0:
        return list(dialogs)
    scores = torch.tensor([dialog.meta["score"] for dialog in dialogs], dtype=torch.float64)
    least = float(scores.quantile(quantile))
    return [dialog for dialog in dialogs if dialog.meta["score"] >= least]


def _dialog(sample: Sample, score: float, *, n_candidates: int) -> Dialog:
    provenance = sample.provenance
    return Dialog(
        id=sample.prompt_id,
        messages=(*sample.prompt, Message(role="assistant", content=sample.response)),
        train_on="last",
        guideline=sample.guideline,
        sample_id=sample.id,
        answer_token_ids=sample.token_ids,
        meta={
            "score": score,
            "scores": sample.scores,
            "scored_by": sample.scored_by,
            "n_candidates": n_candidates,
            "version": provenance.version,
            "model": provenance.model,
            "temperature": provenance.temperature,
            "seed": provenance.seed,
        },
    )
