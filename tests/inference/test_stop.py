import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.inference.stop import StreamedText


def decode_bytes(ids: list[int]) -> str:
    """A tokenizer whose tokens are bytes: the hardest case for characters."""
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_streamed_text_is_the_text_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    streamed = StreamedText(decode_bytes, stops)
    told = ""
    for byte in text.encode():
        told += streamed.add(byte)
        if streamed.is_stopped:
            break
        assert text.startswith(told)
    told += streamed.finish()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if ends:
        first = min(ends)  # the stop string that is complete first
        cut = min(text.find(stop) for stop in stops if stop in text and text.find(stop) + len(stop) <= first)
        assert (streamed.text, streamed.is_stopped) == (text[:cut], True)
    else:
        assert (streamed.text, streamed.is_stopped) == (text, False)
    assert told == streamed.text


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    streamed = StreamedText(lambda ids: "".join("ab#"[i] for i in ids), ["##"])
    assert [streamed.add(token) for token in (0, 2, 1, 2)] == ["a", "", "#b", ""]
    assert streamed.finish() == "#"
    assert streamed.text == "a#b#"


def test_a_stop_string_across_tokens_ends_the_text_before_it() -> None:
    streamed = StreamedText(lambda ids: "".join(["one ", "EN", "D of"][i] for i in ids), ["END"])
    assert [streamed.add(token) for token in (0, 1, 2)] == ["one ", "", ""]
    assert streamed.is_stopped
    assert streamed.text == "one "


@pytest.mark.parametrize("text", ["\N{LLAMA}", "e\N{COMBINING ACUTE ACCENT}", "\N{REPLACEMENT CHARACTER}a"])
def test_characters_come_whole(text: str) -> None:
    streamed = StreamedText(decode_bytes, [])
    told = [streamed.add(byte) for byte in text.encode()]
    assert "".join(told) + streamed.finish() == text
    assert all(len(piece) <= 2 for piece in told)
