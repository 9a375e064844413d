"""Public preference data as comparisons on the paper's four-level scale (§3.2.1), train and test apart by prompt.

What a file does not say is not made up: HH-RLHF has no strength, so every pair gets the setting `unrated`, and
no file here labels the safety of each side, so `safety` stays empty.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.conversations import (
    ImportAccount,
    Unusable,
    chat_messages,
    instruction_prompt,
    require_turns,
    sample_rows,
)
from puna.core.errors import DataError
from puna.core.inputs import InputSource, licence_line, read_rows, require, resolve_path
from puna.core.records import RATINGS, Comparison, Guideline, Message, Rating, Side, write_records
from puna.core.splits import is_held_out
from puna.core.stage import Metrics, stage
from puna.human_feedback.statistics import describe
from puna.tokenizer import Tokenizer

__all__ = [
    "Pair",
    "PreferenceImportConfig",
    "PreferenceSourceConfig",
    "grade_strengths",
    "import_preferences",
    "read_alpaca_eval",
    "read_hh_rlhf",
    "read_trl",
]

UNRATED = "the file has no ratings"


class PreferenceSourceConfig(InputSource):
    """One file of pairs."""

    name: str
    """What reports call it, and the annotator's name in its comparisons."""
    reader: Literal["hh_rlhf", "alpaca_eval", "trl"]
    """hh_rlhf: two text dialogues; alpaca_eval: outputs with a preference from 1 to 2; trl: columns."""
    path: str
    """A .json or .jsonl file, perhaps .gz; may start with ${PUNA_DATA}."""
    guideline: Guideline = "helpfulness"
    """Which annotation guideline the pairs follow, and so which reward model they are for."""
    unrated: Rating = "better"
    """Rating of pairs that have none; our choice: the middle of the scale that does not claim certainty."""
    max_rows: int | None = Field(default=None, ge=1)
    """A seeded sample of at most so many rows; None takes all."""

    def input_path(self) -> Path:
        """The file.

        Raises:
            DataError: it is missing.
        """
        return require(resolve_path(self.path), f"the file of source {self.name}")


class PreferenceImportConfig(Settings):
    """Which files become comparisons."""

    sources: tuple[PreferenceSourceConfig, ...]
    """Read in this order."""
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of prompts whose pairs are held out; the paper holds out 1,000 examples per batch (§3.2.2)."""
    max_chars: int | None = Field(default=None, ge=1)
    """Pairs whose prompt and longer answer exceed this are dropped; None keeps all."""


@dataclass(frozen=True)
class Pair:
    """A preference as the file states it; strength orders pairs of one file, None where it has none."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    strength: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read_hh_rlhf(row: Mapping[str, Any]) -> Pair:
    r"""A pair of HH-RLHF's text dialogues (Bai et al. 2022): "\n\nHuman: ... \n\nAssistant: ...".

    Raises:
        Unusable: the dialogues differ before the last answer, or turns are empty or out of order.
    """
    chosen, rejected = _text_dialogue(row.get("chosen")), _text_dialogue(row.get("rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("different_prompts")
    return Pair(prompt=chosen[:-1], chosen=chosen[-1].content, rejected=rejected[-1].content)


def _text_dialogue(text: Any) -> tuple[Message, ...]:
    if not isinstance(text, str):
        raise Unusable("no_dialogue")
    before, *parts = re.split(r"\n\n(Human|Assistant):", text)
    if before.strip():
        raise Unusable("text_before_first_turn")
    turns = [{"role": speaker.lower(), "content": content} for speaker, content in zip(*[iter(parts)] * 2)]  # noqa: B905
    messages = chat_messages(turns)
    require_turns(messages, last="assistant")
    return messages


def read_alpaca_eval(row: Mapping[str, Any]) -> Pair:
    """A pair of AlpacaEval's weighted annotations: the preference is 1 plus the probability of output 2.

    The strength is the absolute log-odds of the preference.

    Raises:
        Unusable: no preference, or a tie.
    """
    preference = row.get("preference")
    if not isinstance(preference, int | float) or not 1 <= preference <= 2:
        raise Unusable("no_preference")
    if preference == 1.5:
        raise Unusable("tie")
    best, worst = (2, 1) if preference > 1.5 else (1, 2)
    prob = min(max(preference - 1, 1e-9), 1 - 1e-9)
    return Pair(
        prompt=(Message(role="user", content=instruction_prompt(row)),),
        chosen=str(row.get(f"output_{best}") or ""),
        rejected=str(row.get(f"output_{worst}") or ""),
        strength=abs(math.log(prob / (1 - prob))),
        meta={"chosen_by": row.get(f"generator_{best}"), "rejected_by": row.get(f"generator_{worst}")},
    )


def read_trl(row: Mapping[str, Any]) -> Pair:
    """A pair in TRL's columns: prompt, chosen, rejected as texts or as lists of turns, the prompt perhaps implicit.

    Alpaca's instruction and input may stand for the prompt, ShareGPT's conversations too.
    """
    chosen, rejected = _turns(row.get("chosen")), _turns(row.get("rejected"))
    given = row.get("prompt", row.get("conversations"))
    if given is not None:
        prompt = _turns(given, speaker="user")
    elif row.get("instruction"):
        prompt = (Message(role="user", content=instruction_prompt(row)),)
    else:
        prompt = ()
    chosen, rejected = (*prompt, *chosen), (*prompt, *rejected)
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("different_prompts")
    require_turns(chosen, last="assistant")
    return Pair(prompt=chosen[:-1], chosen=chosen[-1].content, rejected=rejected[-1].content)


def _turns(value: Any, speaker: str = "assistant") -> tuple[Message, ...]:
    """A column as messages: a text is one turn of the speaker."""
    if isinstance(value, str):
        value = [{"role": speaker, "content": value}]
    return chat_messages([value] if isinstance(value, Mapping) else value)


READERS = {"hh_rlhf": read_hh_rlhf, "alpaca_eval": read_alpaca_eval, "trl": read_trl}


def grade_strengths(strengths: Sequence[float]) -> list[Rating]:
    """Ratings by quarters of the strengths, strongest quarter significantly_better; equal strengths rate equal.

    The paper's annotators rated by judgement; quantiles are our stand-in, for continuous preferences
    crowd at the ends of their scale.
    """
    weaker_counts: dict[float, int] = {}
    for rank, strength in enumerate(sorted(strengths)):
        weaker_counts.setdefault(strength, rank)
    weakest_first = RATINGS[::-1]
    return [weakest_first[4 * weaker_counts[strength] // len(strengths)] for strength in strengths]


@stage("preferences")
def import_preferences(
    config: PreferenceImportConfig, context: StageContext, *, tokenizer: Path | None = None
) -> Metrics:
    """Turn preference files into comparisons: train.jsonl and test.jsonl; the metrics account for every row.

    Args:
        tokenizer: Folder or file; with it the metrics have the lengths of Tables 6 and 26 as well.
    Raises:
        DataError: a file is missing, a line is broken, or no pair is usable.
    """
    comparisons, accounts = _read_sources(config, context)
    sides: dict[bool, list[Comparison]] = {False: [], True: []}
    for comparison in comparisons:
        key = next(message.content for message in comparison.prompt if message.role == "user")
        sides[is_held_out(key, config.test_fraction, seed=context.seed)].append(comparison)
    return {
        "n_train": write_records(context.folder / "train.jsonl", sides[False]),
        "n_test": write_records(context.folder / "test.jsonl", sides[True]),
        "sources": accounts,
        **describe(comparisons, Tokenizer.load(tokenizer) if tokenizer else None),
    }


def _read_sources(
    config: PreferenceImportConfig, context: StageContext
) -> tuple[list[Comparison], dict[str, Any]]:
    """All comparisons, and the account of every source."""
    comparisons: list[Comparison] = []
    accounts: dict[str, Any] = {}
    for source in config.sources:
        path = source.input_path()
        account = ImportAccount(licence_line(path))
        comparisons += _read_source(source, path, config.max_chars, account, context.seed)
        accounts[source.name] = account.as_metrics()
        context.reporter.log(f"{source.name}: {account.n_kept} of {account.n_rows} rows kept")
    if not comparisons:
        fix = "Check the reader of each source."
        raise DataError(where="sources", expected="at least one pair", got=f"none: {accounts}", fix=fix)
    return comparisons, accounts


def _read_source(
    source: PreferenceSourceConfig, path: Path, max_chars: int | None, account: ImportAccount, seed: int
) -> list[Comparison]:
    seen: set[tuple[tuple[Message, ...], str, str]] = set()

    def use(number: int, row: dict[str, Any]) -> tuple[str, Pair]:
        pair = READERS[source.reader](row)
        key = (pair.prompt, pair.chosen, pair.rejected)
        if not pair.chosen.strip() or not pair.rejected.strip():
            raise Unusable("empty_answer")
        if pair.chosen.strip() == pair.rejected.strip():
            raise Unusable("equal_answers")
        if key in seen:
            raise Unusable("duplicate")
        n_chars = sum(len(m.content) for m in pair.prompt) + max(len(pair.chosen), len(pair.rejected))
        if max_chars is not None and n_chars > max_chars:
            raise Unusable("too_long")
        seen.add(key)
        return f"{source.name}/{number}", pair

    rows = sample_rows(list(read_rows(path)), source.max_rows, seed=seed, source=source.name)
    pairs = list(account.take(rows, use))
    graded = [pair.strength for _, pair in pairs if pair.strength is not None]
    ratings = iter(grade_strengths(graded))
    return [
        _comparison(source, name, pair, source.unrated if pair.strength is None else next(ratings))
        for name, pair in pairs
    ]


def _comparison(source: PreferenceSourceConfig, name: str, pair: Pair, rating: Rating) -> Comparison:
    strength = {"rating_source": UNRATED} if pair.strength is None else {"log_odds": round(pair.strength, 6)}
    return Comparison(
        id=name,
        prompt=pair.prompt,
        chosen=Side(response=pair.chosen.strip()),
        rejected=Side(response=pair.rejected.strip()),
        rating=rating,
        guideline=source.guideline,
        origin="open",
        batch="imported",
        annotator=source.name,
        meta={"source": source.name, **strength, **pair.meta},
    )
