"""Evaluation of one version on held-out prompts (§3.4, §4.4): by a grader who knows the truth, and by reward models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from puna.core.artifacts import StageContext
from puna.core.errors import DataError
from puna.core.grading import Grader
from puna.core.items import Item
from puna.core.records import Prompt, RewardRole, read_records, write_records
from puna.core.stage import Metrics, stage
from puna.evaluation.answers import Answered, Respondent
from puna.evaluation.config import EvaluationConfig
from puna.evaluation.metrics import Measure, measures, table
from puna.evaluation.win_rate import check_judges, read_items, win_rates
from puna.inference.chat_model import ChatModel
from puna.inference.reward_models import RewardModels, as_probs

__all__ = ["evaluate_version"]


@stage("evaluation")
def evaluate_version(
    config: EvaluationConfig,
    context: StageContext,
    *,
    model: Path,
    prompts: Path,
    reward_models: Mapping[str, Path],
    grader: Grader | None = None,
    reference: Path | None = None,
) -> Metrics:
    """Answer every prompt once, grade and score the answers, and measure; items.jsonl keeps all of it.

    The metrics hold the names of `metrics.measures`, win_rate and win_rate_safety with a reference, n (answers),
    too_long (not asked), and intervals {name: [low, high, n]}.

    Args:
        model: The chat model to evaluate.
        prompts: .jsonl file of Prompt; the set of a prompt says which measure it counts for.
        reward_models: By role, helpfulness or safety or both or none.
        grader: Who knows the truth; None on real data, where only reward models judge.
        reference: Folder of an evaluation of another model on the same prompts, for the win rate (§3.4.1).
    """
    chat = ChatModel.load(model, device=context.device, max_batch_size=config.max_batch_size)
    rewards = RewardModels.load(reward_models, chat.tokenizer, device=context.device)
    given = list(read_records(prompts, Prompt))
    _check_room(given, chat, rewards, config)
    if reference:
        check_judges(read_items(reference), rewards.fingerprints, {prompt.id for prompt in given})
    respondent = Respondent(chat, config, context)
    answers = respondent.answer(given)
    if not answers:
        raise DataError(
            where=str(prompts),
            expected="at least one prompt with room for an answer",
            got=f"none; {respondent.n_too_long} were too long",
            fix="Give shorter prompts or lower sampling.max_new_tokens.",
        )
    items = _scored(_graded(answers, grader), answers, rewards, config.max_batch_size)
    write_records(context.folder / "items.jsonl", items)
    n_unasked = respondent.n_unasked if grader else {}
    measured = measures(items, constraint_turns=config.constraint_turns, n_unasked=n_unasked)
    won = _wins(items, reference) if reference else {}
    return table(measured | won) | {"n": len(items), "too_long": respondent.n_too_long}


def _check_room(
    prompts: Sequence[Prompt], chat: ChatModel, rewards: RewardModels, config: EvaluationConfig
) -> None:
    """Refuse a reward model that cannot read what will be answered; dialogs beyond the context are not asked."""
    lengths = [len(chat.render(prompt.messages)) for prompt in prompts]
    asked = [n_tokens for n_tokens in lengths if n_tokens <= chat.room(config.sampling)]
    if asked and rewards.models:
        rewards.check_room(max(asked) + config.sampling.max_new_tokens)


def _graded(answers: Sequence[Answered], grader: Grader | None) -> list[Item]:
    if grader is None:
        return [answer.item for answer in answers]
    return [
        answer.item.model_copy(update={"grade": grader.grade(answer.prompt, answer.item.response)})
        for answer in answers
    ]


def _scored(
    items: Sequence[Item], answers: Sequence[Answered], rewards: RewardModels, max_batch_size: int
) -> list[Item]:
    """The items with each reward model's probabilities; later turns of constraint dialogs stay without."""
    rows = [index for index, item in enumerate(items) if item.suite != "constraint"]
    scored = [answers[index].answer for index in rows]
    logits = rewards.score_answers(scored, max_batch_size=max_batch_size)
    score_of = {role: dict(zip(rows, as_probs(values), strict=True)) for role, values in logits.items()}
    return [
        item.model_copy(
            update={f"rm_{role}": scores.get(index) for role, scores in score_of.items()}
            | {"scored_by": {r: rewards.fingerprints[r] for r, scores in score_of.items() if index in scores}}
        )
        for index, item in enumerate(items)
    ]


def _wins(items: Sequence[Item], reference: Path) -> dict[str, Measure]:
    rates = win_rates(items, read_items(reference))
    names: dict[RewardRole, str] = {"helpfulness": "win_rate", "safety": "win_rate_safety"}
    return {names[role]: Measure(rate.value, *rate.interval, rate.n) for role, rate in rates.items()}
