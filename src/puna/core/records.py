"""The records that stages exchange as JSON Lines; each is checked at the door (design: paper Figure 4's arrows)."""

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from puna.core.errors import DataError

__all__ = [
    "RATINGS",
    "Comparison",
    "Dialog",
    "Document",
    "Domain",
    "FinishReason",
    "Message",
    "Prompt",
    "Provenance",
    "Rating",
    "Record",
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
Domain = Literal["helpfulness", "safety"]
Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]
SafetyLabel = Literal["chosen_safe_rejected_unsafe", "both_safe", "both_unsafe"]

RATINGS: tuple[Rating, ...] = ("significantly_better", "better", "slightly_better", "negligibly_better")
"""The four levels of §3.2.1, strongest first."""


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
    meta: dict[str, Any] = Field(default_factory=dict)


class Prompt(Record):
    """What a model is asked: messages that end with a user turn; meta holds what a grader needs to know."""

    id: str
    messages: tuple[Message, ...]
    domain: Domain = "helpfulness"
    meta: dict[str, Any] = Field(default_factory=dict)


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
    domain: Domain = "helpfulness"
    batch: str = ""
    annotator: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)


class Sample(Record):
    """One sampled response with its lineage (§3.2.3)."""

    prompt_id: str
    prompt: tuple[Message, ...]
    response: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    provenance: Provenance
    domain: Domain = "helpfulness"
    scores: dict[str, float] = Field(default_factory=dict)
    """Reward-model outputs in logits by role: helpfulness, safety."""
    trained: tuple[str, ...] = ()
    """Versions that were fine-tuned on this sample."""


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
