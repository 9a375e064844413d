"""What a batch of comparisons holds: the columns of Tables 6 and 26, rating shares (Fig. 25), safety bins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from puna.core.records import RATINGS, Comparison, SafetyLabel
from puna.tokenizer import Tokenizer

__all__ = ["describe", "lengths"]


def describe(comparisons: Sequence[Comparison], tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Counts by rating, safety bin, guideline and origin; lengths too when there is a tokenizer.

    Source: Llama 2 Table 26 (columns), Figure 25 (ratings), §3.2.1 (bins).
    """
    ratings = Counter(comparison.rating for comparison in comparisons)
    bins = Counter(comparison.safety for comparison in comparisons if comparison.safety)
    counts = {
        "comparisons": len(comparisons),
        "ratings": {rating: ratings[rating] for rating in RATINGS},
        "safety": {name: bins[name] for name in get_args(SafetyLabel)} if bins else {},
        "guidelines": dict(sorted(Counter(comparison.guideline for comparison in comparisons).items())),
        "origins": dict(sorted(Counter(comparison.origin for comparison in comparisons).items())),
        "annotators": dict(sorted(Counter(comparison.annotator for comparison in comparisons).items())),
    }
    return counts | (lengths(comparisons, tokenizer) if tokenizer and comparisons else {})


def lengths(comparisons: Sequence[Comparison], tokenizer: Tokenizer) -> dict[str, float]:
    """Mean turns and tokens, as in Tables 6 and 26.

    An example is the dialog and one response, so a comparison has two. A prompt is one user message and a response one
    answer, those of earlier turns included: the paper does not define them, and this reading makes its single-turn rows
    add up. Markers of the chat format are not counted.
    """
    texts = {m.content for c in comparisons for m in c.prompt}
    texts |= {side.response for c in comparisons for side in (c.chosen, c.rejected)}
    ordered = sorted(texts)
    n_tokens = dict(zip(ordered, map(len, tokenizer.encode_batch(ordered)), strict=True))
    prompts, responses, examples, turns = [], [], [], []
    for comparison in comparisons:
        users = [n_tokens[m.content] for m in comparison.prompt if m.role == "user"]
        others = [n_tokens[m.content] for m in comparison.prompt if m.role != "user"]
        answers = [n_tokens[m.content] for m in comparison.prompt if m.role == "assistant"]
        compared = [n_tokens[side.response] for side in (comparison.chosen, comparison.rejected)]
        turns.append(len(users))
        prompts += users
        responses += answers + compared
        examples += [sum(users) + sum(others) + n for n in compared]
    return {
        "turns_per_dialog": _mean(turns),
        "tokens_per_example": _mean(examples),
        "tokens_per_prompt": _mean(prompts),
        "tokens_per_response": _mean(responses),
    }


def _mean(values: Iterable[int]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
