"""The records that stages exchange as JSON Lines; each is checked at the door (design: paper Figure 4's arrows)."""

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from puna.core.errors import DataError
from puna.core.migrations import migrate_comparison, migrate_dialog, migrate_prompt, migrate_sample
from puna.core.safety_bins import SafetyLabel, safety_bin

__all__ = [
    "RATINGS",
    "REWARD_ROLES",
    "Comparison",
    "Dialog",
    "Document",
    "FinishReason",
    "Guideline",
    "Message",
    "Origin",
    "Prompt",
    "PromptSet",
    "Provenance",
    "Rating",
    "Record",
    "RewardRole",
    "Role",
    "SafetyLabel",
    "Sample",
    "Side",
    "read_records",
    "write_records",
]

FinishReason = Literal["eos", "length", "stop", "cancelled"]
"""Why a response ended: its own end-of-sequence token, a limit, a stop string, or whoever asked for it."""

Role = Literal["system", "user", "assistant"]
Guideline = Literal["helpfulness", "safety"]
"""Which annotation guideline a prompt or a comparison belongs to (§3.2.1). A reward model's own comparisons are those
of the guideline with its role's name (§3.2.2)."""
RewardRole = Literal["helpfulness", "safety"]
"""Which of the two reward models (§3.2.2)."""
PromptSet = Literal["helpful", "adversarial", "borderline", "constraint"]
"""What a prompt is asked for: everyday requests, requests for harm (§4.2.1), harmless ones that look like them
(§4.2.3), dialogs with a standing instruction (§3.3)."""
Origin = Literal["own", "open"]
"""Annotated for this model, or taken from elsewhere (§3.2.1, Table 6)."""
Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]

RATINGS: tuple[Rating, ...] = ("significantly_better", "better", "slightly_better", "negligibly_better")
"""The four levels of §3.2.1, strongest first."""

REWARD_ROLES: tuple[RewardRole, ...] = ("helpfulness", "safety")
"""The two reward models of the paper (§3.2.2)."""


class Record(BaseModel):
    """Base of all records: immutable, and a misspelled field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Record):
    """One page of pretraining text."""

    id: str
    text: str
    source: str
    meta: dict[str, Any] = Field(default_factory=dict)


class Message(Record):
    """One turn of a dialog."""

    role: Role
    content: str


class Dialog(Record):
    """A conversation; training answers are its assistant turns."""

    id: str
    messages: tuple[Message, ...]
    train_on: Literal["all", "last"] = "all"
    """Which answers are learned: all of them, or the last one only (§3.3)."""
    guideline: Guideline | None = None
    """What its answers show; None where nobody said."""
    sample_id: str | None = None
    """The sample that the last answer is, in the file that it was selected from."""
    answer_token_ids: tuple[int, ...] | None = None
    """The tokens of the last answer as they were sampled and scored; None where people or files gave the text."""
    meta: dict[str, Any] = Field(default_factory=dict)

    _migrate = model_validator(mode="before")(migrate_dialog)

    @model_validator(mode="after")
    def _sampled_tokens_have_an_answer(self) -> "Dialog":
        if self.answer_token_ids is not None and (not self.messages or self.messages[-1].role != "assistant"):
            raise ValueError("answer_token_ids need an assistant message at the end, whose tokens they are")
        return self


class Prompt(Record):
    """What a model is asked: messages that end with a user turn; meta holds what a grader needs to know."""

    id: str
    messages: tuple[Message, ...]
    guideline: Guideline = "helpfulness"
    is_safety: bool = False
    """The paper's is_safety(p): tagged as likely to draw an unsafe answer (§3.2.3)."""
    set: PromptSet | None = None
    risk_category: str | None = None
    """What is at stake (§4.2.1)."""
    attack_vector: str | None = None
    """How it is asked (§4.2.1)."""
    meta: dict[str, Any] = Field(default_factory=dict)

    _migrate = model_validator(mode="before")(migrate_prompt)


class Provenance(Record):
    """Which model said it, and how it was sampled."""

    model: str
    """Fingerprint of the model artifact."""
    version: str
    """Name within the recipe, such as sft or rlhf-v1."""
    temperature: float
    top_p: float
    seed: int


class Side(Record):
    """One response of a comparison."""

    response: str
    token_ids: tuple[int, ...] | None = None
    """As sampled; None where a file has the text only."""
    finish_reason: FinishReason | None = None
    is_safe: bool | None = None
    """The annotator's safety label; None where there is none."""
    provenance: Provenance | None = None
    shown_on: Literal["left", "right"] | None = None


class Comparison(Record):
    """One annotated pair (§3.2.1)."""

    id: str
    prompt: tuple[Message, ...]
    chosen: Side
    rejected: Side
    rating: Rating
    safety: SafetyLabel | None = None
    """The bin that the labels of the two sides make; None where a label is missing."""
    guideline: Guideline = "helpfulness"
    origin: Origin = "own"
    batch: str = ""
    annotator: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    _migrate = model_validator(mode="before")(migrate_comparison)

    @model_validator(mode="after")
    def _bin_is_that_of_the_sides(self) -> "Comparison":
        chosen, rejected = self.chosen.is_safe, self.rejected.is_safe
        is_labelled = chosen is not None and rejected is not None
        follows = (
            safety_bin(chosen_is_safe=bool(chosen), rejected_is_safe=bool(rejected)) if is_labelled else None
        )
        if self.safety != follows:
            raise ValueError(f"safety must be {follows}, as the is_safe labels of the two sides say")
        return self


class Sample(Record):
    """One sampled response with its lineage (§3.2.3)."""

    id: str
    """The prompt's with the sample's number: unique in its file."""
    prompt_id: str
    prompt: tuple[Message, ...]
    response: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    provenance: Provenance
    guideline: Guideline = "helpfulness"
    is_safety: bool = False
    """The prompt's tag."""
    scores: dict[RewardRole, float] = Field(default_factory=dict)
    """Reward-model outputs in logits."""
    scored_by: dict[RewardRole, str] = Field(default_factory=dict)
    """Fingerprint of the reward model that gave each score; scores of different ones cannot be compared."""
    rank: int | None = Field(default=None, ge=1)
    """Place among the samples of its prompt in its file by the ranking score; 1 is the best."""

    _migrate = model_validator(mode="before")(migrate_sample)


R = TypeVar("R", bound=BaseModel)


def open_text(path: Path) -> io.TextIOBase:
    """Open .jsonl, .jsonl.gz or .jsonl.zst for reading as UTF-8 text."""
    if path.suffix == ".zst":
        stream = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
        return io.TextIOWrapper(stream, encoding="utf-8")
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8")
    return path.open(encoding="utf-8")


def read_records(path: Path, record: type[R]) -> Iterator[R]:
    """Yield the file's records in order.

    Raises:
        DataError: the file is missing, or a line is not valid JSON of this record; names file and line.
    """
    if not path.is_file():
        raise DataError(
            where=str(path),
            expected=f"a JSON Lines file of {record.__name__} records",
            got="no such file",
            fix="Check the path.",
        )
    number = 0
    try:
        with open_text(path) as stream:
            for line in stream:
                number += 1
                if line.strip():
                    yield record.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(
            where=f"{path}, line {number}",
            expected=f"one {record.__name__} as JSON",
            got=f"{field}: {first['msg']}",
            fix="Correct or remove this line.",
        ) from None
    except (UnicodeDecodeError, EOFError, OSError, zstandard.ZstdError) as error:
        raise DataError(
            where=f"{path}, after line {number}",
            expected="readable UTF-8 text",
            got=str(error),
            fix="The file is damaged or truncated: restore it.",
        ) from None


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records one per line (zstd when the name ends so); returns how many."""
    n_records = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = path.open("wb")
    sink = zstandard.ZstdCompressor().stream_writer(raw) if path.suffix == ".zst" else raw
    with raw, sink:
        for record in records:
            line = json.dumps(record.model_dump(exclude_none=True), ensure_ascii=False)
            sink.write(line.encode() + b"\n")
            n_records += 1
    return n_records
