"""Evaluation of one version on held-out prompts (§3.4, §4.4): by a grader who knows the truth, and by reward models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from puna.core.artifacts import Manifest, StageContext, run_stage
from puna.core.errors import CheckpointError, ConfigError, DataError
from puna.core.grading import Grader
from puna.core.items import Item
from puna.core.progress import Reporter
from puna.core.records import Prompt, read_records, write_records
from puna.evaluation.answers import Answer, Respondent
from puna.evaluation.config import EvaluationConfig
from puna.evaluation.metrics import Measure, measures, table
from puna.evaluation.win_rate import read_items, win_rates
from puna.inference import score_sequences
from puna.model import load_score_model
from puna.tokenizer import Tokenizer

__all__ = ["evaluate_version"]

ROLES = ("helpfulness", "safety")

PROBE = 'The quick brown fox, 1234 times: "Jumps" over a lazy dog?'
"""Text that two different tokenizers hardly cut alike."""


class _Request(EvaluationConfig):
    """The settings and who grades, so that another grader makes another artifact."""

    grader: str | None
    """Class of the grader; None where there is no ground truth."""


def evaluate_version(
    config: EvaluationConfig,
    *,
    model: Path,
    prompts: Path,
    grader: Grader | None,
    reward_models: Mapping[str, Path],
    out: Path,
    seed: int,
    reporter: Reporter | None = None,
    labels: Mapping[str, str] | None = None,
    reference: Path | None = None,
) -> Manifest:
    """Answer every prompt once, grade and score the answers, and measure; items.jsonl keeps all of it.

    Args:
        prompts: JSON Lines of Prompt; meta['set'] says which measure a prompt is for (items.suite_of).
        grader: None on real data, where only reward models judge.
        reward_models: By role, helpfulness or safety or both or none.
        reference: Evaluation of another version on the same prompts, to win against (§3.4.1).
    Returns:
        Manifest of kind "evaluation"; metrics: the names of `metrics.measures`, win_rate and win_rate_safety with a
        reference, n (answers), too_long (not asked), and intervals {name: [low, high, n]}.
    """
    if unknown := sorted(set(reward_models) - set(ROLES)):
        raise ConfigError(
            where="reward_models", expected="helpfulness, safety", got=str(unknown), fix="Rename them."
        )

    def build(context: StageContext) -> dict[str, Any]:
        return _evaluate(config, model, prompts, grader, reward_models, reference, context)

    return run_stage(
        out,
        kind="evaluation",
        config=_Request(**config.model_dump(), grader=type(grader).__name__ if grader else None),
        inputs={"model": model, "prompts": prompts}
        | {f"reward_model.{role}": path for role, path in sorted(reward_models.items())}
        | ({"reference": reference} if reference else {}),
        seed=seed,
        build=build,
        labels=labels,
        reporter=reporter,
    )


def _evaluate(
    config: EvaluationConfig,
    model: Path,
    prompts: Path,
    grader: Grader | None,
    reward_models: Mapping[str, Path],
    reference: Path | None,
    context: StageContext,
) -> dict[str, Any]:
    respondent = Respondent(model, config, context)
    answers = respondent.answer(list(read_records(prompts, Prompt)))
    if not answers:
        raise DataError(
            where=str(prompts),
            expected="at least one prompt with room for an answer",
            got=f"none; {respondent.n_too_long} were too long",
            fix="Give shorter prompts or lower sampling.max_new_tokens.",
        )
    items = _graded(answers, grader)
    for role, folder in sorted(reward_models.items()):
        items = _scored(items, answers, role, folder, respondent.tokenizer, config.max_batch_size)
    write_records(context.folder / "items.jsonl", items)
    found = measures(items, constraint_turns=config.constraint_turns)
    won = _wins(items, reference) if reference else {}
    return table(found | won) | {"n": len(items), "too_long": respondent.n_too_long}


def _graded(answers: Sequence[Answer], grader: Grader | None) -> list[Item]:
    if grader is None:
        return [answer.item for answer in answers]
    return [
        answer.item.model_copy(update={"grade": grader.grade(answer.prompt, answer.item.response)})
        for answer in answers
    ]


def _scored(
    items: Sequence[Item],
    answers: Sequence[Answer],
    role: str,
    folder: Path,
    tokenizer: Tokenizer,
    max_batch_size: int,
) -> list[Item]:
    """The items with one reward model's scores as probabilities; later turns of constraint dialogs stay without."""
    if Tokenizer.load(folder).encode(PROBE) != tokenizer.encode(PROBE):
        expected, fix = "the tokenizer of the evaluated model", "Use a reward model of the same family."
        raise CheckpointError(where=str(folder), expected=expected, got="another tokenizer", fix=fix)
    score_model = load_score_model(folder).eval()
    rows = [index for index, item in enumerate(items) if item.suite != "constraint"]
    sequences = [_finished(answers[index], tokenizer.eos_id) for index in rows]
    logits = score_sequences(score_model, sequences, max_batch_size=max_batch_size)
    probs = torch.tensor(logits, dtype=torch.float64).sigmoid().tolist()
    score_of = dict(zip(rows, probs, strict=True))
    return [item.model_copy(update={f"rm_{role}": score_of.get(index)}) for index, item in enumerate(items)]


def _finished(answer: Answer, eos_id: int) -> list[int]:
    """The tokens with an end: a cut answer gives its last token, as reward models know ended answers only."""
    if answer.item.finish_reason == "eos":
        return answer.token_ids
    return [*answer.token_ids[:-1], eos_id]


def _wins(items: Sequence[Item], reference: Path) -> dict[str, Measure]:
    found = win_rates(items, read_items(reference))
    names = {"helpfulness": "win_rate", "safety": "win_rate_safety"}
    return {names[role]: Measure(rate.value, *rate.interval, rate.n) for role, rate in found.items()}
