"""What every chat format shares: a dialog as tokens, the span of each turn, and the loss mask that follows (§3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from puna.core.records import Message

__all__ = [
    "ChatFormat",
    "ChatTokenizer",
    "Refusal",
    "RenderedDialog",
    "TurnSpan",
    "loss_mask",
    "render_dialog",
    "render_prompt",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnSpan:
    """The tokens [start, end) of one turn; a user turn holds its markers, an assistant turn its </s>."""

    role: Literal["user", "assistant"]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedDialog:
    """A dialog as the model sees it; the turns cover all tokens in order, without gaps."""

    token_ids: tuple[int, ...]
    turns: tuple[TurnSpan, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A dialog that is not answered, with the reason as a code."""

    reason: Literal["special_tags"]
    """special_tags: a message holds markers of the chat format."""
    tags: tuple[str, ...]
    """Those it holds."""


@runtime_checkable
class ChatFormat(Protocol):
    """How one tokenizer writes dialogs; `Tokenizer.chat` is one."""

    name: str
    """For people."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer in this format."""
        ...

    def render_dialog(self, messages: Sequence[Message]) -> RenderedDialog:
        """Token ids of a dialog and where its turns lie."""
        ...

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to the place where the assistant answers."""
        ...

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The dialog as one text, for people to read."""
        ...

    def refusal(self, messages: Sequence[Message]) -> Refusal | None:
        """Why such a dialog is not to be answered; None when it may be."""
        ...


@runtime_checkable
class ChatTokenizer(Protocol):
    """A tokenizer that knows its chat format."""

    @property
    def chat(self) -> ChatFormat:
        """How it writes dialogs."""
        ...


def render_dialog(messages: Sequence[Message], tokenizer: ChatTokenizer) -> RenderedDialog:
    """Token ids of a dialog in the tokenizer's own format, and where its turns lie.

    Args:
        messages: An optional system message, then user and assistant in turn; either may be last.
    Raises:
        ProtocolError: the roles do not alternate so, or the model's template refuses the dialog.
    """
    return tokenizer.chat.render_dialog(messages)


def render_prompt(messages: Sequence[Message], tokenizer: ChatTokenizer) -> list[int]:
    """Token ids up to the place where the assistant answers, in the tokenizer's own format.

    Raises:
        ProtocolError: the last message is not the user's, or as `render_dialog`.
    """
    return tokenizer.chat.render_prompt(messages)


def loss_mask(rendered: RenderedDialog, answers: Literal["all", "last"] = "all") -> list[bool]:
    """True on the tokens to learn: answers and their </s>, never the prompt.

    Source: §3.1 zeroes the loss on user prompts; §3.3 learns only the last answer of a GAtt dialog ("last").
    """
    mask = [False] * len(rendered.token_ids)
    spans = [turn for turn in rendered.turns if turn.role == "assistant"]
    for turn in spans if answers == "all" else spans[-1:]:
        mask[turn.start : turn.end] = [True] * (turn.end - turn.start)
    return mask
