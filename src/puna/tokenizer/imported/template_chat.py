"""Dialogs in a model's own chat template (ChatML, Zephyr, Llama 3 and so on), with the span of every turn.

Control tokens come from the template only. Where a message holds the text of one, that text is broken by a shield
character before the template sees it and mended afterwards; so templates may strip, cut or test a message as they
like, and a message without such text is rendered as transformers renders it. The ids are then those of transformers,
save where a token would reach across the place at which the assistant begins: there prompt and answer are encoded
one after the other, as when the answer is generated.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from puna.core.errors import ProtocolError
from puna.core.records import Message
from puna.tokenizer.backend import text_error
from puna.tokenizer.chat_format import SPECIAL_TAGS
from puna.tokenizer.dialog_tokens import Refusal, RenderedDialog, TurnSpan
from puna.tokenizer.imported.chat_template import ChatTemplate
from puna.tokenizer.imported.guard import GuardedTokenizer, control_pattern

__all__ = ["TemplateChat"]

FIRST_SHIELD = 0xF0000
"""Private use: a character that neither the messages nor the template hold is looked for from here on."""
PROBE = (Message(role="user", content="a"), Message(role="assistant", content="b"))


class TemplateChat:
    """A chat template on a tokenizer whose control tokens are hidden."""

    name = "the model's own template"

    def __init__(
        self, template: ChatTemplate, tokenizer: GuardedTokenizer, *, stop_ids: tuple[int, ...]
    ) -> None:
        """Take the template, the tokenizer with its control tokens hidden, and the stop ids that files name."""
        self._template = template
        self._tokenizer = tokenizer
        self._file_stop_ids = stop_ids
        # A single character cannot be shielded; as a control token in a template none is known.
        controls = [control for control in tokenizer.secret_names if len(control) > 1]
        self._controls = control_pattern(controls)
        self._shielding = _Shielding(controls)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that the model's files name, and the token that ends an answer in the template."""
        try:
            end_of_turn = self.render_dialog(PROBE).token_ids[-1:]
        except ProtocolError:  # the template may want a tool or a system message
            end_of_turn = ()
        return tuple(dict.fromkeys((*self._file_stop_ids, *end_of_turn)))

    def render_dialog(self, messages: Sequence[Message]) -> RenderedDialog:
        """Token ids of a dialog and where its turns lie; an answer's span ends with the template's end of turn.

        A dialog that does not end with the assistant ends where the assistant begins, the template's header of the
        answer included. What the template writes after a last end of turn, such as a line end, is left out: a finished
        dialog ends as generation ends.

        Raises:
            ProtocolError: the template refuses the dialog, or does not show where answers begin and end.
        """
        places = [number for number, message in enumerate(messages) if message.role == "assistant"]
        is_open = not messages or messages[-1].role != "assistant"
        jobs: list[tuple[Sequence[Message], bool]] = [(messages[:number], True) for number in places]
        *prompts, whole = self._render(messages, [*jobs, (messages, is_open)])
        answers = [messages[number].content for number in places]
        return self._tokens(answers, prompts, whole, is_open=is_open)

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to the place where the assistant answers.

        Raises:
            ProtocolError: the last message is not the user's, or as `render_dialog`.
        """
        if not messages or messages[-1].role != "user":
            got = f"one by the {messages[-1].role} at the end" if messages else "no messages"
            raise self._template.error("a prompt that ends with a user message", got)
        return list(self.render_dialog(messages).token_ids)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The dialog as the template writes it, control tokens by name.

        Raises:
            ProtocolError: the template refuses the dialog.
        """
        comes_next = bool(messages) and messages[-1].role != "assistant"
        dialog = [message.model_dump() for message in messages]
        return self._template.render([(dialog, comes_next)])[0]

    def refusal(self, messages: Sequence[Message]) -> Refusal | None:
        """Llama 2's rule, for those of its markers that this template writes too."""
        tags = tuple(
            tag
            for tag in SPECIAL_TAGS
            if tag in self._template.source and any(tag in message.content for message in messages)
        )
        return Refusal(reason="special_tags", tags=tags) if tags else None

    def _render(
        self, messages: Sequence[Message], jobs: Sequence[tuple[Sequence[Message], bool]]
    ) -> list[str]:
        """Each rendered text, the template's control tokens by secret name and all else as it was typed."""
        contents = [message.content for message in messages]
        if (error := text_error(contents)) is not None:
            raise error
        shield = _unused_character([self._template.source, *contents])
        shielded = [
            ([self._shielding.shielded(message, shield) for message in dialog], comes_next)
            for dialog, comes_next in jobs
        ]
        names = self._tokenizer.secret_names
        return [
            self._controls.sub(lambda found: names[found.group()], text).replace(shield, "")
            for text in self._template.render(shielded)
        ]

    def _tokens(
        self, answers: Sequence[str], prompts: Sequence[str], whole: str, *, is_open: bool
    ) -> RenderedDialog:
        """Cut the whole at every answer's begin and end, and encode part by part."""
        token_ids: list[int] = []
        turns = []
        place = 0
        for answer_text, prompt in zip(answers, prompts, strict=True):
            end = self._answer_end(answer_text, prompt, whole, place)
            question = self._encode(whole, place, len(prompt))
            answer = self._continuation(whole, place, len(prompt), end, question)
            middle = len(token_ids) + len(question)
            turns.append(TurnSpan(role="user", start=len(token_ids), end=middle))
            token_ids += question + answer
            turns.append(TurnSpan(role="assistant", start=middle, end=len(token_ids)))
            place = end
        if is_open:
            last = self._encode(whole, place, len(whole))
            turns.append(TurnSpan(role="user", start=len(token_ids), end=len(token_ids) + len(last)))
            token_ids += last
        return RenderedDialog(token_ids=tuple(token_ids), turns=tuple(turns))

    def _answer_end(self, answer: str, prompt: str, whole: str, place: int) -> int:
        """Where the end of turn after an answer ends.

        Raises:
            ProtocolError: the prompt is not how the dialog begins, or no control token ends the answer.
        """
        spans = self._tokenizer.control_spans(whole[len(prompt) :])
        if not whole.startswith(prompt) or len(prompt) < place:
            expected = "a template under which a dialog begins with its prompt"
            raise self._template.error(expected, f"another text before answer {answer[:40]!r}")
        if not spans:
            raise self._template.error(
                "a template that ends answers with a control token", "one that does not"
            )
        start, end = spans[0]
        if answer.strip() and not whole[len(prompt) : len(prompt) + start].strip():
            expected = "a template whose generation prompt reaches to the answer"
            raise self._template.error(expected, "a control token between the two")
        return len(prompt) + end

    def _encode(self, whole: str, start: int, end: int) -> list[int]:
        """Ids of a part, as they are after what stands before it."""
        before = self._control_before(whole, start)
        return self._tokenizer.encode(before + whole[start:end])[bool(before) :]

    def _continuation(self, whole: str, start: int, middle: int, end: int, question: list[int]) -> list[int]:
        """Ids of an answer after its question, which keeps its own."""
        joint = self._encode(whole, start, end)
        if joint[: len(question)] == question:
            return joint[len(question) :]
        control = next(iter(self._tokenizer.secret_names.values()))
        return self._tokenizer.encode(control + whole[middle:end])[1:]

    def _control_before(self, whole: str, place: int) -> str:
        """The control token that ends at a place; a text after one may be encoded unlike a text at the start."""
        return next((whole[a:b] for a, b in self._tokenizer.control_spans(whole[:place]) if b == place), "")


class _Shielding:
    """Breaks control tokens in messages, also those that a message and the template would make together."""

    def __init__(self, controls: Sequence[str]) -> None:
        beginnings = {control[:n] for control in controls for n in range(1, len(control))}
        endings = {control[n:] for control in controls for n in range(1, len(control))}
        whole = "|".join(re.escape(control) for control in controls)
        self._inside = re.compile(f"(?s)(?=(?:{whole}))." if whole else r"(?!)")
        self._all = tuple(controls)
        self._beginnings = tuple(beginnings)
        self._endings = tuple(endings)

    def shielded(self, message: Message, shield: str) -> dict[str, str]:
        """The message as the template gets it."""
        content = self._inside.sub(lambda found: found.group() + shield, message.content)
        body = content.strip()
        if body and body.endswith(self._beginnings):
            end = len(content.rstrip())
            content = content[:end] + shield + content[end:]
        if body and body.startswith(self._endings):
            start = len(content) - len(content.lstrip())
            content = content[:start] + shield + content[start:]
        if body and any(body in control for control in self._all):
            content = content.replace(body, body[0] + shield + body[1:])
        return {"role": message.role, "content": content}


def _unused_character(texts: Sequence[str]) -> str:
    used = set().union(*texts)
    return next(chr(code) for code in range(FIRST_SHIELD, 0x110000) if chr(code) not in used)
