"""The one definition of "finished", in every place that uses it, and by every way in which the engine ends."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from puna.core.records import FinishReason, Message
from puna.inference.chat_model import Answer, ChatModel
from puna.inference.finish import is_finished
from puna.inference.request import Completion, Request
from puna.inference.reward_models import ended_sequence
from puna.inference.sampling import SamplingConfig
from tiny_chat_models import save_chat_model, tiny_tokenizer

CPU = torch.device("cpu")
EOS = 2
FINISHED = {"eos": True, "stop": True, "length": False, "cancelled": False}


def test_every_reason_is_decided() -> None:
    assert set(FINISHED) == set(get_args(FinishReason))
    assert {reason: is_finished(reason) for reason in get_args(FinishReason)} == FINISHED


@pytest.mark.parametrize("text", ["moo", ""])
@pytest.mark.parametrize("reason", FINISHED)
def test_an_answer_is_finished_when_it_ended_by_itself_and_says_something(
    reason: FinishReason, text: str
) -> None:
    answer = Answer([1], Completion(token_ids=[5], logprobs=[-1.0], finish_reason=reason), text)
    assert answer.finish_reason == reason
    assert answer.is_finished == (FINISHED[reason] and text == "moo")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    root = tmp_path_factory.mktemp("chat")
    tokenizer = tiny_tokenizer(root / "tokenizer")
    return ChatModel.load(save_chat_model(root / "model", tokenizer, seed=1), device=CPU)


@pytest.fixture(scope="module")
def prompt(chat: ChatModel) -> list[int]:
    return chat.render([Message(role="user", content="what color is the hen?")])


def ended(chat: ChatModel, answer: Answer) -> list[int]:
    return ended_sequence(
        answer.prompt_ids,
        answer.completion.token_ids,
        answer.finish_reason,
        eos_id=chat.tokenizer.eos_id,
        max_tokens=chat.max_seq_len,
    )


def test_by_its_end_token(chat: ChatModel, prompt: list[int]) -> None:
    """At most 100 of 300 about equally likely tokens: one in four ends by itself."""
    sampling = SamplingConfig(temperature=1, top_p=1, max_new_tokens=100)
    answers = [a for a in chat.answer([prompt] * 32, sampling, seeds=range(32)) if a.finish_reason == "eos"]
    assert answers
    for answer in answers:
        tokens = answer.completion.token_ids
        assert tokens.index(EOS) == len(tokens) - 1
        assert answer.is_finished
        assert answer.text == chat.tokenizer.decode(tokens[:-1]).strip()
        assert ended(chat, answer) == [*prompt, *tokens]


def test_by_its_length(chat: ChatModel, prompt: list[int]) -> None:
    (answer,) = chat.answer([prompt], SamplingConfig(temperature=0, max_new_tokens=6), seeds=[0])
    assert (answer.finish_reason, answer.is_finished) == ("length", False)
    assert len(answer.completion.token_ids) == 6
    assert ended(chat, answer) == [*prompt, *answer.completion.token_ids[:5], EOS]


def test_by_the_end_of_the_context(chat: ChatModel, prompt: list[int]) -> None:
    (answer,) = chat.answer([prompt], SamplingConfig(temperature=0, max_new_tokens=999), seeds=[0])
    assert answer.finish_reason == "length"
    tokens = [*prompt, *answer.completion.token_ids]
    assert len(tokens) == chat.max_seq_len
    assert ended(chat, answer) == [*tokens[:-1], EOS]


def stopped(chat: ChatModel, prompt: list[int], n_tokens: int) -> Answer:
    """An answer that a stop string ends with exactly so many tokens."""
    sampling = SamplingConfig(temperature=1, top_p=1, max_new_tokens=n_tokens)
    for seed in range(1000):
        (whole,) = chat.answer([prompt], sampling, seeds=[seed])
        before = chat.tokenizer.decode(whole.completion.token_ids[:-1])
        last = chat.tokenizer.decode(whole.completion.token_ids).removeprefix(before)
        if whole.finish_reason == "length" and last.isalpha() and last not in before and before.strip():
            stop = sampling.model_copy(update={"stop": (last,)})
            (answer,) = chat.answer([prompt], stop, seeds=[seed])
            assert answer.completion.token_ids == whole.completion.token_ids
            assert answer.text == before.strip()
            return answer
    raise AssertionError("no such answer")


def test_by_a_stop_string(chat: ChatModel, prompt: list[int]) -> None:
    answer = stopped(chat, prompt, 9)
    assert (answer.finish_reason, answer.is_finished) == ("stop", True)
    assert ended(chat, answer) == [*prompt, *answer.completion.token_ids, EOS], "the end token comes after it"


def test_by_a_stop_string_in_the_last_token_of_the_context(chat: ChatModel, prompt: list[int]) -> None:
    n_left = 9
    filled = (prompt * 9)[: chat.max_seq_len - n_left]
    answer = stopped(chat, filled, n_left)
    assert (answer.finish_reason, answer.is_finished) == ("stop", True)
    tokens = [*filled, *answer.completion.token_ids]
    assert len(tokens) == chat.max_seq_len
    assert ended(chat, answer) == [*tokens[:-1], EOS], "there is no room after it"


@pytest.mark.parametrize("n_steps", [0, 4])
def test_by_whoever_asked(chat: ChatModel, prompt: list[int], n_steps: int) -> None:
    sampling = SamplingConfig(temperature=0, max_new_tokens=60)
    request_id = chat.engine.submit(Request(prompt=prompt, sampling=sampling, seed=0))
    for _ in range(n_steps):
        chat.engine.step()
    completion = chat.engine.cancel(request_id)
    assert completion is not None
    assert completion.finish_reason == "cancelled"
    assert len(completion.token_ids) == n_steps
    answer = Answer(prompt, completion, chat.engine.text(completion))
    assert not answer.is_finished
    assert ended(chat, answer) == [*prompt, *completion.token_ids[:-1], EOS]


def test_an_end_without_a_word_is_not_finished(chat: ChatModel) -> None:
    """An answer of the end token alone, or of white space and a stop string, says nothing."""
    for tokens, reason, text in (([EOS], "eos", None), ([5], "stop", " \n")):
        completion = Completion(token_ids=tokens, logprobs=[-1.0], finish_reason=reason, text=text)
        assert not Answer([1], completion, chat.engine.text(completion)).is_finished


def test_the_tokenizer_of_these_tests_has_the_usual_end(chat: ChatModel, tmp_path: Path) -> None:
    assert chat.tokenizer.eos_id == EOS
    assert chat.tokenizer.stop_ids == (EOS,)
