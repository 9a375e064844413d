"""Other formats as messages, and the account of an import."""

import pytest

from puna.core.conversations import (
    ImportAccount,
    Unusable,
    chat_messages,
    instruction_prompt,
    require_turns,
    sample_rows,
)
from puna.core.records import Message


def test_instruction_and_input_are_joined() -> None:
    assert instruction_prompt({"instruction": " Add. ", "input": "1 and 2"}) == "Add.\n\n1 and 2"
    assert instruction_prompt({"instruction": "Who?", "context": ""}) == "Who?"


@pytest.mark.parametrize(
    ("row", "reason"), [({}, "empty"), ({"instruction": "I am {{name}}"}, "placeholder")]
)
def test_prompts_without_content_are_unusable(row: dict, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        instruction_prompt(row)


def test_sharegpt_and_openai_turns_are_the_same() -> None:
    sharegpt = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": " hello "}]
    openai = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert chat_messages(sharegpt) == chat_messages(openai)


@pytest.mark.parametrize(
    "turns", [None, "hi", [{"from": "tool", "value": "x"}], [{"from": "gpt", "value": " "}]]
)
def test_turns_that_do_not_fit_are_unusable(turns: object) -> None:
    with pytest.raises(Unusable):
        chat_messages(turns)


def test_turns_alternate_after_an_optional_system_message() -> None:
    system, user, answer = (Message(role=role, content="x") for role in ("system", "user", "assistant"))
    require_turns([system, user, answer], last="assistant")
    for wrong in ([], [system], [answer], [user], [user, user, answer], [user, answer, system]):
        with pytest.raises(Unusable):
            require_turns(wrong, last="assistant")


def test_account_counts_every_row() -> None:
    def use(number: int, row: int) -> int:
        if row % 2:
            raise Unusable("odd")
        return row * 10 + number

    account = ImportAccount("MIT")
    assert list(account.take([2, 3, 4], use)) == [20, 42]
    assert account.as_metrics() == {"licence": "MIT", "n_rows": 3, "n_kept": 2, "dropped": {"odd": 1}}


def test_samples_keep_order_and_seed() -> None:
    rows = list(range(100))
    sample = sample_rows(rows, 10, seed=1, source="a")
    assert sample == sorted(sample) == sample_rows(rows, 10, seed=1, source="a")
    assert len(sample) == 10
    assert sample_rows(rows, None, seed=1, source="a") == sample_rows(rows, 200, seed=1, source="a") == rows
