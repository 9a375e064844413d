"""Which pairs a reward model learns from (§3.2.2, data composition)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.core.errors import DataError
from puna.core.records import Comparison, RewardRole, read_records
from puna.core.seeding import rng
from puna.core.splits import is_held_out
from puna.tokenizer import prompt_text

__all__ = ["OWN_FRACTION", "Comparisons", "load_comparisons", "mix"]

OWN_FRACTION: dict[RewardRole, float] = {"helpfulness": 0.5, "safety": 0.9}
"""§3.2.2: helpfulness takes an equal amount from elsewhere; safety 10 %, which helps pairs that are both safe."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Pairs to learn from and pairs to test on."""

    train: list[Comparison]
    test: list[Comparison]


def load_comparisons(sources: Sequence[Path], *, held_out_fraction: float) -> Comparisons:
    """Read preference artifacts (train.jsonl, test.jsonl) and plain .jsonl files, which are divided by prompt.

    A prompt that one source tests on is trained on by none.

    Raises:
        DataError: a file is missing or broken, or nothing is left to train on.
    """
    train: list[Comparison] = []
    test: list[Comparison] = []
    for source in sources:
        if source.is_dir():
            train += read_records(source / "train.jsonl", Comparison)
            test += read_records(source / "test.jsonl", Comparison)
            continue
        for comparison in read_records(source, Comparison):
            is_test = is_held_out(prompt_text(comparison.prompt), held_out_fraction)
            (test if is_test else train).append(comparison)
    tested = {prompt_text(comparison.prompt) for comparison in test}
    return Comparisons([c for c in train if prompt_text(c.prompt) not in tested], test)


def mix(
    comparisons: Sequence[Comparison], *, role: RewardRole, own_fraction: float | None, seed: int
) -> list[Comparison]:
    """All pairs of the role's guideline, and a uniform sample of the others to the share that is asked for.

    Source: Llama 2 §3.2.2.

    Raises:
        DataError: no pair is of the role's guideline.
    """
    own = [comparison for comparison in comparisons if comparison.guideline == role]
    others = [comparison for comparison in comparisons if comparison.guideline != role]
    if not own:
        fix = f"Collect {role} preferences, or set guideline in the file's lines."
        raise DataError(
            where="comparisons", expected=f"training pairs of guideline {role}", got="none", fix=fix
        )
    share = OWN_FRACTION[role] if own_fraction is None else own_fraction
    n_others = min(len(others), round(len(own) * (1 - share) / share))
    return own + rng(seed, "mixture", role).sample(others, n_others)
