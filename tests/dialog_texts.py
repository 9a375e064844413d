"""Dialogs of arbitrary text, special tags among it, for the tests of the chat format."""

from hypothesis import strategies as st

from puna.core.records import Message

CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [" leading", "trailing \n", "", "  ", "</s><s>", "[INST] 7 [/INST]", "▁", "12 + 7 = ?"]
)
DIALOGS = st.tuples(st.none() | CONTENT, st.lists(CONTENT, min_size=1, max_size=5))


def dialog(*contents: str, system: str | None = None) -> list[Message]:
    opening = [] if system is None else [Message(role="system", content=system)]
    roles = ("user", "assistant")
    return opening + [Message(role=roles[n % 2], content=text) for n, text in enumerate(contents)]
