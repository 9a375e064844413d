"""A prompt with its token boundaries, for people who want to see what the model sees."""

from collections.abc import Sequence

from puna.core.records import Message
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["preview"]


def preview(messages: Sequence[Message], tokenizer: Tokenizer, *, separator: str = "|") -> str:
    """One line a turn: role, token count, and the pieces between separators; a prompt ends where the answer begins.

    A space is U+2581 and a byte <0x0A>, as in `Tokenizer.pieces`; line ends that a piece holds are written \\n.

    Raises:
        ProtocolError: the chat format refuses the messages.
    """
    rendered = tokenizer.chat.render_dialog(messages)
    lines = []
    for turn in rendered.turns:
        pieces = tokenizer.pieces(rendered.token_ids[turn.start : turn.end])
        shown = separator.join(pieces).replace("\n", "\\n")
        lines.append(f"{turn.role:<9} {len(pieces):>5} tokens  {shown}")
    return "\n".join(lines)
