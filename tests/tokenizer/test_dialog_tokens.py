from hypothesis import given, settings

from dialog_texts import DIALOGS, dialog
from puna.tokenizer import Tokenizer, loss_mask, render_dialog, render_prompt


@settings(deadline=None)
@given(parts=DIALOGS)
def test_turns_cover_the_tokens_and_answers_are_learned(
    tokenizer: Tokenizer, parts: tuple[str | None, list[str]]
) -> None:
    system, contents = parts
    rendered = render_dialog(dialog(*contents, system=system), tokenizer)
    ends = [turn.end for turn in rendered.turns]
    assert [turn.start for turn in rendered.turns] == [0, *ends[:-1]]
    assert ends[-1] == len(rendered.token_ids)
    assert [turn.role for turn in rendered.turns] == [
        ["user", "assistant"][n % 2] for n in range(len(contents))
    ]

    mask = loss_mask(rendered)
    learned = [token_id for token_id, is_learned in zip(rendered.token_ids, mask, strict=True) if is_learned]
    answers = [f"{answer.strip()} " for answer in contents[1::2]]
    assert learned == [token_id for text in answers for token_id in tokenizer.encode(text, eos=True)]


def test_last_answer_only(tokenizer: Tokenizer) -> None:
    rendered = render_dialog(dialog("a", "first", "b", "second"), tokenizer)
    mask = loss_mask(rendered, "last")
    assert sum(mask) == len(tokenizer.encode("second ", eos=True))
    assert all(mask[rendered.turns[-1].start :])
    assert not any(loss_mask(render_dialog(dialog("a"), tokenizer), "last"))


def test_a_prompt_is_how_its_dialog_begins(tokenizer: Tokenizer) -> None:
    messages = dialog("One?", "1", "Two?", "2", system="Count.")
    prompt = render_prompt(messages[:-1], tokenizer)
    rendered = render_dialog(messages, tokenizer)
    assert prompt == list(rendered.token_ids[: rendered.turns[-1].start])
    assert prompt.count(tokenizer.bos_id) == 2
    assert prompt.count(tokenizer.eos_id) == 1
