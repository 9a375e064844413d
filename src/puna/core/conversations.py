"""Other people's dialog formats as our messages, and the account of what an import took and left."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from puna.core.records import Message, Role
from puna.core.seeding import rng

__all__ = [
    "ImportAccount",
    "Unusable",
    "chat_messages",
    "instruction_prompt",
    "require_turns",
    "sample_rows",
]

ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
"""Names of the speakers in ShareGPT, OpenAI and Open Assistant files."""

T = TypeVar("T")


class Unusable(Exception):
    """One row cannot be used; the message is the reason that the account counts."""


def instruction_prompt(row: Mapping[str, Any]) -> str:
    """The user's text of an Alpaca or Dolly row: the instruction, then its input or context after a blank line."""
    parts = (row.get("instruction"), row.get("input") or row.get("context"))
    text = "\n\n".join(str(part).strip() for part in parts if part)
    if not text:
        raise Unusable("empty_prompt")
    if "{{" in text:
        raise Unusable("template_placeholder")
    return text


def chat_messages(turns: Any) -> tuple[Message, ...]:
    """Messages of a ShareGPT (from, value) or OpenAI (role, content) list.

    Raises:
        Unusable: a turn has no text, or a speaker with no place in a Llama 2 dialog, such as a tool.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise Unusable("no_turns")
    messages = []
    for turn in turns:
        speaker = turn.get("from", turn.get("role"))
        content = turn.get("value", turn.get("content"))
        if speaker not in ROLES:
            raise Unusable("unknown_speaker")
        if not isinstance(content, str) or not content.strip():
            raise Unusable("empty_turn")
        messages.append(Message(role=ROLES[speaker], content=content.strip()))
    return tuple(messages)


def require_turns(messages: Sequence[Message], *, last: Role) -> None:
    """Check an optional system message, then user and assistant in turn, ending with the given role.

    Raises:
        Unusable: the order is another one.
    """
    roles = [message.role for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[number % 2] for number in range(len(spoken))]
    if not spoken or spoken != expected or spoken[-1] != last:
        raise Unusable("turns_out_of_order")


@dataclass
class ImportAccount:
    """Rows in, kept and dropped with reasons, of one imported source."""

    licence: str
    n_rows: int = 0
    n_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def take(self, rows: Iterable[T], use: Callable[[int, T], Any]) -> Iterator[Any]:
        """Apply use to every numbered row and yield what it makes; rows that are unusable are counted."""
        for number, row in enumerate(rows):
            self.n_rows += 1
            try:
                made = use(number, row)
            except Unusable as problem:
                self.dropped[str(problem)] += 1
                continue
            self.n_kept += 1
            yield made

    def as_metrics(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "licence": self.licence,
            "n_rows": self.n_rows,
            "n_kept": self.n_kept,
            "dropped": dict(sorted(self.dropped.items())),
        }


def sample_rows(rows: Sequence[T], max_rows: int | None, *, seed: int, source: str) -> list[T]:
    """At most so many rows, a seeded sample in the file's order."""
    if max_rows is None or len(rows) <= max_rows:
        return list(rows)
    return [rows[i] for i in sorted(rng(seed, "sample_rows", source).sample(range(len(rows)), max_rows))]
