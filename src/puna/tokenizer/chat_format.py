"""Llama 2's chat format, as Meta's released code writes it: the only home of [INST] and <<SYS>>, which are plain text.

What every chat format shares is in dialog_tokens.py, the same format in Jinja in jinja_template.py. Models with a
template of their own are `imported/template_chat.py`'s.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

from puna.core.errors import ProtocolError
from puna.core.records import Message
from puna.tokenizer.backend import TextEncoder
from puna.tokenizer.dialog_tokens import Refusal, RenderedDialog, TurnSpan

__all__ = ["SPECIAL_TAGS", "Llama2Chat", "prompt_text"]

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>\n", "\n<</SYS>>\n\n"
SPECIAL_TAGS = (B_INST, E_INST, B_SYS.strip(), E_SYS.strip())


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
        """The dialog as one text, for people to read."""
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
