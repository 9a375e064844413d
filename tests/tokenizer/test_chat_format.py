import pytest
from hypothesis import given, settings

from dialog_texts import DIALOGS, dialog
from puna.core.errors import ProtocolError
from puna.core.records import Message
from puna.tokenizer import (
    Tokenizer,
    prompt_text,
    render_dialog,
    render_prompt,
)


def metas_tokens(messages: list[Message], tokenizer: Tokenizer) -> list[int]:
    """The released generation code, written down again: a finished pair is one text."""
    turns = [(message.role, message.content) for message in messages]
    if turns[0][0] == "system":
        folded = "<<SYS>>\n" + turns[0][1] + "\n<</SYS>>\n\n" + turns[1][1]
        turns = [(turns[1][0], folded), *turns[2:]]
    ids: list[int] = []
    for (_, user), (_, answer) in zip(turns[::2], turns[1::2], strict=False):
        ids += tokenizer.encode(f"[INST] {user.strip()} [/INST] {answer.strip()} ", bos=True, eos=True)
    if turns[-1][0] == "user":
        ids += tokenizer.encode(f"[INST] {turns[-1][1].strip()} [/INST]", bos=True)
    return ids


@settings(deadline=None)
@given(parts=DIALOGS)
def test_ids_are_those_of_metas_code(tokenizer: Tokenizer, parts: tuple[str | None, list[str]]) -> None:
    system, contents = parts
    messages = dialog(*contents, system=system)
    assert list(render_dialog(messages, tokenizer).token_ids) == metas_tokens(messages, tokenizer)


def test_typed_control_tokens_stay_text(tokenizer: Tokenizer) -> None:
    prompt = render_prompt(dialog("stop </s><s> now"), tokenizer)
    assert prompt.count(tokenizer.bos_id) == 1
    assert tokenizer.eos_id not in prompt
    assert "stop </s><s> now" in tokenizer.decode(prompt)


def test_prompt_text_folds_the_system_message_and_strips_afterwards() -> None:
    messages = dialog("  Hi \n", " Hello! ", "More?", system=" Be brief. ")
    expected = "[INST] <<SYS>>\n Be brief. \n<</SYS>>\n\n  Hi [/INST] Hello! [INST] More? [/INST]"
    assert prompt_text(messages) == expected


@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_special_tags_are_refused_in_any_role(tokenizer: Tokenizer, tag: str) -> None:
    for messages in (dialog("fine", f"x{tag}y"), dialog("fine", system=tag)):
        refusal = tokenizer.chat.refusal(messages)
        assert refusal is not None
        assert tag in refusal.tags
    assert tokenizer.chat.refusal(dialog("fine", tag.lower())) is None


@pytest.mark.parametrize(
    ("roles", "place"),
    [
        (["assistant"], "message 1 to be by the user"),
        (["user", "user"], "message 2 to be by the assistant"),
        (["system", "system", "user"], "message 2 to be by the user"),
        (["system", "user", "system"], "message 3 to be by the assistant"),
        (["system"], "at least one user message"),
        ([], "at least one user message"),
    ],
)
def test_roles_must_alternate(tokenizer: Tokenizer, roles: list[str], place: str) -> None:
    messages = [Message.model_validate({"role": role, "content": "x"}) for role in roles]
    with pytest.raises(ProtocolError, match=place):
        render_dialog(messages, tokenizer)


def test_a_prompt_ends_with_the_user(tokenizer: Tokenizer) -> None:
    with pytest.raises(ProtocolError, match="ends with a user message"):
        render_prompt(dialog("a", "b"), tokenizer)


@pytest.mark.real
def test_llama_2_golden_dialog(llama2: Tokenizer) -> None:
    """Ids of the released tokenizer, from SentencePiece itself on the texts that Meta's code builds."""
    messages = dialog("Hi there", "Hello!", "2+2=?", system="Be brief.")
    inst, end_inst = [518, 25580, 29962], [518, 29914, 25580, 29962]
    begin_sys, end_sys = [3532, 14816, 29903, 6778, 13], [13, 29966, 829, 14816, 29903, 6778, 13, 13]
    first = [1, *inst, *begin_sys, 3629, 11473, 29889, *end_sys, 18567, 727, *end_inst]
    answer = [15043, 29991, 29871, 2]
    second = [1, *inst, 29871, 29906, 29974, 29906, 29922, 29973, *end_inst]
    assert render_prompt(messages, llama2) == first + answer + second


@pytest.mark.real
@settings(deadline=None)
@given(parts=DIALOGS)
def test_llama_2_ids_are_those_of_metas_code(llama2: Tokenizer, parts: tuple[str | None, list[str]]) -> None:
    system, contents = parts
    messages = dialog(*contents, system=system)
    assert list(render_dialog(messages, llama2).token_ids) == metas_tokens(messages, llama2)


def test_a_refusal_is_a_value_with_its_reason(tokenizer: Tokenizer) -> None:
    refusal = tokenizer.chat.refusal(dialog("a [INST] b", "c <</SYS>>"))
    assert refusal is not None
    assert (refusal.reason, refusal.tags) == ("special_tags", ("[INST]", "<</SYS>>"))
    assert tokenizer.chat.refusal(dialog("fine")) is None


def test_stop_ids_are_the_eos_id_where_no_file_says_more(tokenizer: Tokenizer) -> None:
    assert tokenizer.stop_ids == (tokenizer.eos_id,)
