"""The Llama 2-Chat dialog format as Meta's released code writes it: the only home of [INST] and <<SYS>>.

The markers are plain text. What separates prompt from answer for the loss (§3.1) is the span of each turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from puna.core.errors import ProtocolError
from puna.core.records import Message

__all__ = [
    "CHAT_TEMPLATE",
    "RenderedDialog",
    "TextEncoder",
    "TurnSpan",
    "answer_text",
    "contains_special_tags",
    "loss_mask",
    "prompt_text",
    "render_dialog",
    "render_prompt",
]

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>\n", "\n<</SYS>>\n\n"
SPECIAL_TAGS = (B_INST, E_INST, B_SYS.strip(), E_SYS.strip())

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- for control in ['<s>', '</s>', '<unk>'] -%}"
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
"""The same format in Jinja, for software that reads tokenizer_config.json.

Such software encodes the rendered text, where a "</s>" typed by a user cannot be told from ours: the template raises.
"""


@runtime_checkable
class TextEncoder(Protocol):
    """The part of a tokenizer that rendering needs."""

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


def render_dialog(messages: Sequence[Message], tokenizer: TextEncoder) -> RenderedDialog:
    """Token ids of a dialog and where its turns lie.

    Source: Meta's generation code encodes a question and its answer as one text; here each half is encoded alone, as
    when the answer is being generated. The ids are the same: no piece of such a model runs on from "]" across a space.

    Args:
        messages: An optional system message, then user and assistant in turn; either may be last.
    Raises:
        ProtocolError: the roles do not alternate so.
    """
    token_ids: list[int] = []
    turns = []
    for role, text in _turn_texts(messages):
        start = len(token_ids)
        is_user = role == "user"
        token_ids += tokenizer.encode(text, bos=is_user, eos=not is_user)
        turns.append(TurnSpan(role=role, start=start, end=len(token_ids)))
    return RenderedDialog(token_ids=tuple(token_ids), turns=tuple(turns))


def render_prompt(messages: Sequence[Message], tokenizer: TextEncoder) -> list[int]:
    """Token ids up to the place where the assistant answers; <s> opens every user turn.

    Raises:
        ProtocolError: the last message is not the user's, or the roles do not alternate.
    """
    rendered = render_dialog(messages, tokenizer)
    if rendered.turns[-1].role != "user":
        raise _protocol_error("a prompt that ends with a user message", "an assistant message at the end")
    return list(rendered.token_ids)


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
    """Whether any message, of any role, holds a marker of this format.

    Source: Meta's code still generates for such a dialog, but puts a fixed error text in place of the answer.
    """
    return any(tag in message.content for message in messages for tag in SPECIAL_TAGS)


def prompt_text(messages: Sequence[Message]) -> str:
    """The dialog as one text, markers included, without <s> and </s>.

    Raises:
        ProtocolError: the roles do not alternate.
    """
    turns = [text if role == "user" else f" {text}" for role, text in _turn_texts(messages)]
    return "".join(turns)


def answer_text(answer: str) -> str:
    """What is encoded for an answer; </s> follows its trailing space."""
    return f"{answer.strip()} "


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
            yield expected, answer_text(message.content)


def _protocol_error(expected: str, got: str) -> ProtocolError:
    fix = "A dialog is an optional system message, then user and assistant in turn, starting with user."
    return ProtocolError(where="dialog", expected=expected, got=got, fix=fix)
