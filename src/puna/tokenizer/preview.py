"""A prompt with its token boundaries, for people who want to see what the model sees."""

from collections.abc import Sequence

from puna.core.records import Message
from puna.tokenizer.chat_format import render_dialog
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["preview"]


def preview(messages: Sequence[Message], tokenizer: Tokenizer, *, separator: str = "|") -> str:
    """One line a turn: role, token count, and the pieces between separators.

    A space is U+2581 and a byte <0x0A>, as in `Tokenizer.pieces`; so no piece breaks the line.

    Raises:
        ProtocolError: the roles do not alternate.
    """
    rendered = render_dialog(messages, tokenizer)
    lines = []
    for turn in rendered.turns:
        pieces = tokenizer.pieces(rendered.token_ids[turn.start : turn.end])
        lines.append(f"{turn.role:<9} {len(pieces):>5} tokens  {separator.join(pieces)}")
    return "\n".join(lines)
