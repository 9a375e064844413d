from puna.core.records import Message
from puna.tokenizer import Tokenizer, preview, render_dialog


def test_preview_shows_every_token_of_every_turn(tokenizer: Tokenizer) -> None:
    messages = [Message(role="user", content="apples\n12?"), Message(role="assistant", content="The llama")]
    lines = preview(messages, tokenizer, separator="·").splitlines()
    rendered = render_dialog(messages, tokenizer)
    assert len(lines) == 2
    for line, turn in zip(lines, rendered.turns, strict=True):
        pieces = line.split("tokens  ")[1].split("·")
        assert line.startswith(turn.role)
        assert f" {len(pieces)} tokens" in line
        assert pieces == tokenizer.pieces(rendered.token_ids[turn.start : turn.end])
    assert "·<0x0A>·1·2·" in lines[0]
    assert lines[1].endswith("·</s>")
