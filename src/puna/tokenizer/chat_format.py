"""Dialogs to token ids: what every format shares, and Llama 2's as Meta's released code writes it.

This file is the only home of [INST] and <<SYS>>, which are plain text. What separates prompt from answer for the loss
(§3.1) is the span of each turn. Models with a Jinja template of their own are `template_chat`'s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

from puna.core.errors import ProtocolError
from puna.core.records import Message

__all__ = [
    "CHAT_TEMPLATE",
    "SPECIAL_TAGS",
    "ChatFormat",
    "ChatTokenizer",
    "Llama2Chat",
    "Refusal",
    "RenderedDialog",
    "TextEncoder",
    "TurnSpan",
    "chat_template",
    "contains_special_tags",
    "is_llama2_template",
    "loss_mask",
    "prompt_text",
    "render_dialog",
    "render_prompt",
]

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>\n", "\n<</SYS>>\n\n"
SPECIAL_TAGS = (B_INST, E_INST, B_SYS.strip(), E_SYS.strip())


def chat_template(controls: Sequence[str]) -> str:
    """The same format in Jinja, for software that reads tokenizer_config.json.

    Such software encodes the rendered text, where a "</s>" typed by a user cannot be told from ours: the template
    raises.

    Args:
        controls: The tokens that text must not hold.
    """
    listed = ", ".join("'" + control.replace("\\", "\\\\").replace("'", "\\'") + "'" for control in controls)
    return (
        f"{{%- for message in messages -%}}{{%- for control in [{listed}] -%}}"
        "{%- if control in message['content'] -%}"
        "{{- raise_exception('A message contains ' + control + ', which would become a control token.') -}}"
        "{%- endif -%}{%- endfor -%}{%- endfor -%}"
        "{%- if messages[0]['role'] == 'system' -%}"
        "{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}"
        "{%- set turns = messages[1:] -%}"
        "{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
        "{%- for turn in turns -%}"
        "{%- if turn['role'] != ['user', 'assistant'][loop.index0 % 2] -%}"
        "{{- raise_exception('Roles must alternate user, assistant, starting with user.') -}}"
        "{%- elif turn['role'] == 'user' -%}"
        "{%- set content = (system if loop.first else '') + turn['content'] -%}"
        "{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}"
        "{%- else -%}{{- ' ' + turn['content'].strip() + ' ' + eos_token -}}{%- endif -%}"
        "{%- endfor -%}"
    )


CHAT_TEMPLATE = chat_template(("<s>", "</s>", "<unk>"))
"""For a tokenizer with Llama 2's three control tokens."""
_BEFORE_CONTROLS, _AFTER_CONTROLS = CHAT_TEMPLATE.split("'<s>', '</s>', '<unk>'")


def is_llama2_template(source: str) -> bool:
    """Whether a template is `chat_template`'s, for any control tokens."""
    return source.startswith(_BEFORE_CONTROLS) and source.endswith(_AFTER_CONTROLS)


@runtime_checkable
class TextEncoder(Protocol):
    """The part of a tokenizer that this format needs."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of the text."""
        ...


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


class Llama2Chat:
    """Llama 2's format: <s> opens every user turn, </s> ends every answer."""

    name = "Llama 2"

    def __init__(self, tokenizer: TextEncoder, *, stop_ids: tuple[int, ...]) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = stop_ids

    def render_dialog(self, messages: Sequence[Message]) -> RenderedDialog:
        """Token ids of a dialog and where its turns lie.

        Source: Meta's generation code encodes a question and its answer as one text; here each half is encoded alone,
        as when the answer is being generated. The ids are the same: no piece of such a model runs on from "]" across
        a space.

        Raises:
            ProtocolError: the roles do not alternate.
        """
        token_ids: list[int] = []
        turns = []
        for role, text in _turn_texts(messages):
            start = len(token_ids)
            is_user = role == "user"
            opened = text if is_user else self._answer_opening + text
            token_ids += self._tokenizer.encode(opened, bos=is_user, eos=not is_user)
            turns.append(TurnSpan(role=role, start=start, end=len(token_ids)))
        return RenderedDialog(token_ids=tuple(token_ids), turns=tuple(turns))

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to the place where the assistant answers.

        Raises:
            ProtocolError: the last message is not the user's, or the roles do not alternate.
        """
        rendered = self.render_dialog(messages)
        if rendered.turns[-1].role != "user":
            raise _protocol_error("a prompt that ends with a user message", "an assistant message at the end")
        return list(rendered.token_ids)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The function of this name."""
        return prompt_text(messages)

    def refusal(self, messages: Sequence[Message]) -> Refusal | None:
        """Meta's rule: no message of any role may hold a marker.

        Differs: Meta's code still generates for such a dialog, and then puts a fixed error text in place of the
        answer; here the caller gets this value and need not generate.
        """
        tags = tuple(tag for tag in SPECIAL_TAGS if any(tag in message.content for message in messages))
        return Refusal(reason="special_tags", tags=tags) if tags else None

    @cached_property
    def _answer_opening(self) -> str:
        """The space between "[/INST]" and an answer, for a tokenizer that puts none before a text by itself."""
        encode = self._tokenizer.encode
        return "" if encode("] a") == encode("]") + encode("a") else " "


def loss_mask(rendered: RenderedDialog, answers: Literal["all", "last"] = "all") -> list[bool]:
    """True on the tokens to learn: answers and their </s>, never the prompt.

    Source: §3.1 zeroes the loss on user prompts; §3.3 learns only the last answer of a GAtt dialog ("last").
    """
    mask = [False] * len(rendered.token_ids)
    spans = [turn for turn in rendered.turns if turn.role == "assistant"]
    for turn in spans if answers == "all" else spans[-1:]:
        mask[turn.start : turn.end] = [True] * (turn.end - turn.start)
    return mask


def contains_special_tags(messages: Sequence[Message]) -> bool:
    """Whether any message, of any role, holds a marker of Llama 2's format.

    `ChatFormat.refusal` says it for each format.
    """
    return any(tag in message.content for message in messages for tag in SPECIAL_TAGS)


def prompt_text(messages: Sequence[Message]) -> str:
    """The dialog as one text, markers included, without <s> and </s>.

    Raises:
        ProtocolError: the roles do not alternate.
    """
    turns = [text if role == "user" else f" {text}" for role, text in _turn_texts(messages)]
    return "".join(turns)


def _turn_texts(messages: Sequence[Message]) -> Iterator[tuple[Literal["user", "assistant"], str]]:
    """Role and text of each turn, the system message folded into the first user turn."""
    system, turns = "", messages
    if messages and messages[0].role == "system":
        system, turns = B_SYS + messages[0].content + E_SYS, messages[1:]
    if not turns:
        raise _protocol_error("at least one user message", f"{len(messages)} messages, none by the user")
    for number, message in enumerate(turns):
        expected: Literal["user", "assistant"] = "user" if number % 2 == 0 else "assistant"
        if message.role != expected:
            place = number + 1 + len(messages) - len(turns)
            raise _protocol_error(f"message {place} to be by the {expected}", f"one by the {message.role}")
        if expected == "user":
            content = (system if number == 0 else "") + message.content
            yield expected, f"{B_INST} {content.strip()} {E_INST}"
        else:
            yield expected, f"{message.content.strip()} "  # </s> follows the space


def _protocol_error(expected: str, got: str) -> ProtocolError:
    fix = "A dialog is an optional system message, then user and assistant in turn, starting with user."
    return ProtocolError(where="dialog", expected=expected, got=got, fix=fix)
