"""Rollout tensors: masks, trimming, and that sampler and trainer see the same log-probabilities."""

from pathlib import Path

import torch

from puna.core.records import Message, Prompt
from puna.core.seeding import derive_seed
from puna.inference import Completion, Engine, token_logprobs
from puna.model import load_model, load_score_model
from puna.rlhf.prompts import EncodedPrompt
from puna.rlhf.rollout import Rollout, by_length, lay_out, response_logprobs, response_values, sample
from puna.tokenizer import Tokenizer, render_prompt

CPU = torch.device("cpu")


def sampled(world: dict[str, Path], n: int = 6) -> tuple[Engine, list[EncodedPrompt], list[Completion]]:
    tokenizer = Tokenizer.load(world["model"])
    engine = Engine(load_model(world["model"], device="cpu"), tokenizer)
    prompts = []
    for index in range(n):
        messages = (Message(role="user", content="what color is the hen? " * (index % 3 + 1)),)
        prompt = Prompt(id=str(index), messages=messages)
        prompts.append(EncodedPrompt(prompt, render_prompt(messages, tokenizer)))
    seeds = [derive_seed(0, "test", index) for index in range(n)]
    return engine, prompts, sample(engine, prompts, max_new_tokens=12, seeds=seeds)


def laid_out(world: dict[str, Path]) -> tuple[Engine, Rollout]:
    engine, prompts, completions = sampled(world)
    return engine, lay_out([prompt.token_ids for prompt in prompts], completions, device=CPU)


def test_trainer_logprobs_equal_the_samplers(world: dict[str, Path]) -> None:
    engine, rollout = laid_out(world)
    with torch.no_grad():
        logprobs = response_logprobs(engine.model, rollout)
    torch.testing.assert_close(logprobs, rollout.sampler_logprobs, atol=2e-5, rtol=0)


def test_response_logprobs_are_those_of_the_whole_text(world: dict[str, Path]) -> None:
    engine, prompts, completions = sampled(world)
    rollout = lay_out([prompt.token_ids for prompt in prompts], completions, device=CPU)
    with torch.no_grad():
        ours = response_logprobs(engine.model, rollout)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            text = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
            expected = token_logprobs(engine.model, text)[0, len(prompt.token_ids) - 1 :]
            torch.testing.assert_close(ours[row, : len(expected)], expected, atol=2e-5, rtol=0)
            assert not rollout.mask[row, len(expected) :].any()
            assert ours[row, len(expected) :].eq(0).all()


def test_eos_is_a_response_token_and_the_filler_is_never_read(world: dict[str, Path]) -> None:
    """TRL put the score on the first pad and broke when pad was eos; here the filler may be any id, eos included."""
    engine, _ = laid_out(world)
    eos = engine.tokenizer.eos_id
    completions = [
        Completion(token_ids=[9, eos], logprobs=[-1.0, -1.0], finish_reason="eos"),
        Completion(token_ids=[9, 8, 7, 6], logprobs=[-1.0] * 4, finish_reason="length"),
    ]
    rollout = lay_out([[1, 5], [1, 5]], completions, device=CPU)
    assert rollout.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert rollout.is_finished.tolist() == [True, False]
    poisoned = rollout.tokens.clone()
    poisoned[0, 4:] = eos
    with torch.no_grad():
        clean, other = (
            response_logprobs(engine.model, rollout._replace(tokens=t)) for t in (rollout.tokens, poisoned)
        )
    assert torch.equal(clean, other)


def test_values_are_taken_before_each_token(world: dict[str, Path]) -> None:
    critic = load_score_model(world["helpfulness"], device="cpu")
    _, rollout = laid_out(world)
    with torch.no_grad():
        values, everywhere = response_values(critic, rollout), critic(rollout.tokens)
    start = int(rollout.prompt_lengths[0])
    n = int(rollout.response_lengths[0])
    torch.testing.assert_close(values[0, :n], everywhere[0, start - 1 : start - 1 + n])


def test_grouping_by_length_changes_nothing(world: dict[str, Path]) -> None:
    engine, rollout = laid_out(world)
    with torch.no_grad():
        whole = response_logprobs(engine.model, rollout)
        parts = by_length(rollout, 2, lambda part: response_logprobs(engine.model, part))
    torch.testing.assert_close(parts, whole, atol=2e-5, rtol=0)
