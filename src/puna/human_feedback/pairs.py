"""Preference collection (§3.2.1): two responses, an annotator who chooses and rates, and what the protocol keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from puna.core.artifacts import StageContext
from puna.core.errors import ConfigError, DataError
from puna.core.grading import Annotator
from puna.core.records import Comparison, Prompt, Side, read_records, write_records
from puna.core.seeding import derive_seed, rng
from puna.core.splits import is_held_out
from puna.core.stage import Metrics, stage
from puna.human_feedback.agreement import gwet_ac
from puna.human_feedback.config import PreferencesConfig
from puna.human_feedback.protocol import check_comparison, preference_level
from puna.human_feedback.sampling import Candidate, SampledPair, fitting_prompts, load_variants, sample_pairs
from puna.human_feedback.statistics import describe
from puna.tokenizer import prompt_text

__all__ = ["annotate", "collect_preferences"]

N_LEVELS = 8
"""Four ratings for either side."""


@dataclass(slots=True)
class Annotations:
    """What came of showing pairs to annotators."""

    comparisons: list[Comparison] = field(default_factory=list)
    n_excluded: int = 0
    """Pairs whose chosen side was judged unsafe and the other safe."""
    n_identical: int = 0
    """Pairs with the same response twice."""
    levels: list[tuple[int | None, int | None]] = field(default_factory=list)
    """Judgements of the pairs that two annotators saw, on the scale of `preference_level`; None where one of them
    excluded the pair."""


@stage("preferences", labels={"batch": "{batch}"})
def collect_preferences(
    config: PreferencesConfig,
    context: StageContext,
    *,
    models: Sequence[Path],
    prompts: Path,
    annotators: Sequence[Annotator],
    batch: str = "1",
) -> Metrics:
    """Sample answers, let simulated annotators compare them, and write train.jsonl and test.jsonl (§3.2.1).

    The metrics hold the counts and lengths of Table 26.

    Args:
        models: The latest model, and its predecessor when there is one: then each side is from another.
        prompts: JSON Lines of Prompt.
        annotators: Who chooses and rates; simulated ones say so in their names.
        batch: Name of the annotation batch; the paper's are weekly (Table 26).
    """
    if not annotators:
        raise ConfigError(where="annotators", expected="at least one", got="none", fix="Name who compares.")
    variants = load_variants(models, config, device=context.device)
    given = list(read_records(prompts, Prompt))
    kept = fitting_prompts(given, variants, max_new_tokens=config.max_new_tokens)
    pairs = sample_pairs(variants, kept, config, seed=context.seed, reporter=context.reporter)
    annotations = annotate(pairs, annotators, config, batch=batch, seed=context.seed)
    if not annotations.comparisons:
        raise DataError(
            where=str(prompts),
            expected="at least one pair to compare",
            got=f"none: {len(given)} prompts, {len(kept)} of them short enough, "
            f"{annotations.n_identical} pairs of equal responses, {annotations.n_excluded} excluded",
            fix="Give more prompts, a smaller max_new_tokens or more different temperatures.",
        )
    test, train = _split(annotations.comparisons, config.held_out_fraction)
    write_records(context.folder / "train.jsonl", train)
    write_records(context.folder / "test.jsonl", test)
    counts = {
        "train": len(train),
        "test": len(test),
        "excluded": annotations.n_excluded,
        "identical": annotations.n_identical,
        "prompts_too_long": len(given) - len(kept),
        "cut_by_length": sum(side.finish_reason == "length" for p in pairs for side in (p.left, p.right)),
        "chosen_left": sum(c.chosen.shown_on == "left" for c in annotations.comparisons),
    }
    return describe(annotations.comparisons, variants[0].tokenizer) | counts | _agreement(annotations.levels)


def _split(
    comparisons: Sequence[Comparison], held_out_fraction: float
) -> tuple[list[Comparison], list[Comparison]]:
    """Held-out pairs and the others, by the prompt's text alone: what one round tests on, no round trains on."""
    held_out: list[Comparison] = []
    others: list[Comparison] = []
    for comparison in comparisons:
        is_test = is_held_out(prompt_text(comparison.prompt), held_out_fraction)
        (held_out if is_test else others).append(comparison)
    return held_out, others


def annotate(
    pairs: Sequence[SampledPair],
    annotators: Sequence[Annotator],
    config: PreferencesConfig,
    *,
    batch: str,
    seed: int,
) -> Annotations:
    """Show each pair to one annotator, and some to a second, and sort out what does not count."""
    annotations = Annotations()
    for pair in pairs:
        if pair.left.response == pair.right.response:
            annotations.n_identical += 1
            continue
        random_ = rng(seed, "annotators", pair.prompt.id, pair.number)
        first, *others = random_.sample(list(annotators), min(2, len(annotators)))
        comparison = _compare(pair, first, batch, seed)
        if comparison is None:
            annotations.n_excluded += 1
        else:
            annotations.comparisons.append(comparison)
        if others and random_.random() < config.double_annotated_fraction:
            second = _compare(pair, others[0], batch, seed)
            annotations.levels.append((_level(comparison), _level(second)))
    return annotations


def _level(comparison: Comparison | None) -> int | None:
    return None if comparison is None else preference_level(comparison)


def _compare(pair: SampledPair, annotator: Annotator, batch: str, seed: int) -> Comparison | None:
    """One annotator's judgement, with where the responses came from."""
    own_seed = derive_seed(seed, "annotation", pair.prompt.id, pair.number, annotator.name)
    judged = annotator.compare(pair.prompt, pair.left.response, pair.right.response, seed=own_seed)
    if judged is None:
        return None
    is_left_chosen = judged.chosen.response == pair.left.response
    shown = (pair.left, pair.right) if is_left_chosen else (pair.right, pair.left)
    places: tuple[Literal["left", "right"], ...] = ("left", "right") if is_left_chosen else ("right", "left")
    chosen, rejected = (
        _side(candidate, place, side.is_safe)
        for candidate, place, side in zip(shown, places, (judged.chosen, judged.rejected), strict=True)
    )
    identity = f"{batch}-{pair.prompt.id}-{pair.number}"
    comparison = judged.model_copy(
        update={"id": identity, "chosen": chosen, "rejected": rejected, "batch": batch}
    )
    check_comparison(comparison)
    return comparison


def _side(candidate: Candidate, place: Literal["left", "right"], is_safe: bool | None) -> Side:
    """A candidate as the comparison records it."""
    return Side(
        response=candidate.response,
        token_ids=candidate.token_ids,
        finish_reason=candidate.finish_reason,
        is_safe=is_safe,
        provenance=candidate.provenance,
        shown_on=place,
    )


def _agreement(levels: Sequence[tuple[int | None, int | None]]) -> dict[str, float | int]:
    """AC2 of the pairs shown to two annotators, and on how many both chose; absent where there are none.

    A pair that one of them excluded has one rating: as Gwet (2014) has it for missing ratings, it counts for how
    common each rating is, and not for the observed agreement.
    """
    rated = [(a, b) for a, b in levels if a is not None and b is not None]
    if not rated:
        return {"agreement_n": 0}
    middle = N_LEVELS // 2
    return {
        "agreement_n": len(rated),
        "agreement_ac2": gwet_ac(levels, n_categories=N_LEVELS),
        "agreement_same_side": sum((a >= middle) == (b >= middle) for a, b in rated) / len(rated),
    }
