"""Responses sampled from the policy, token in and token out, with masks made where the tokens are made."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from puna.inference import Completion, Engine, SamplingConfig, gather_logprobs, right_padded_hidden
from puna.inference.finish import is_finished
from puna.model import ScoreModel, Transformer
from puna.rlhf.prompts import EncodedPrompt

__all__ = ["Rollout", "by_length", "lay_out", "response_logprobs", "response_values", "sample"]


class Rollout(NamedTuple):
    """One row a response. Rows are right-padded; the filler is never read, because the masks are explicit."""

    tokens: Int[Tensor, "batch seq"]
    """Prompt, then response."""
    prompt_lengths: Int[Tensor, " batch"]
    mask: Bool[Tensor, "batch response"]
    """Which response tokens exist, eos included where it was sampled."""
    sampler_logprobs: Float[Tensor, "batch response"]
    """Nats, as the engine computed them."""
    is_finished: Bool[Tensor, " batch"]
    """Ended by itself, not cut by length."""

    @property
    def response_lengths(self) -> Int[Tensor, " batch"]:
        """Tokens of each response."""
        return self.mask.sum(dim=1)

    def rows(self, index: Int[Tensor, " row"]) -> "Rollout":
        """Some of the rows, trimmed to about the longest of them."""
        mask = self.mask[index]
        n_response = _round_up(int(mask.sum(dim=1).max()), limit=mask.shape[1])
        n_tokens = _round_up(
            int((self.prompt_lengths[index] + mask.sum(dim=1)).max()), limit=self.tokens.shape[1]
        )
        return Rollout(
            tokens=self.tokens[index, :n_tokens],
            prompt_lengths=self.prompt_lengths[index],
            mask=mask[:, :n_response],
            sampler_logprobs=self.sampler_logprobs[index, :n_response],
            is_finished=self.is_finished[index],
        )


def _round_up(length: int, *, limit: int, multiple: int = 16) -> int:
    """A few lengths instead of many: oneDNN compiles and keeps a kernel for every size."""
    return min(-(-length // multiple) * multiple, limit)


def sample(
    engine: Engine, prompts: Sequence[EncodedPrompt], *, max_new_tokens: int, seeds: Sequence[int]
) -> list[Completion]:
    """One response a prompt, on-policy: temperature 1 and the whole distribution."""
    sampling = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=max_new_tokens)
    return engine.generate([prompt.token_ids for prompt in prompts], sampling, seeds=seeds)


def lay_out(
    prompts: Sequence[Sequence[int]], completions: Sequence[Completion], *, device: torch.device
) -> Rollout:
    """Prompts and completions as one rectangle."""
    n_rows = len(prompts)
    lengths = [len(completion.token_ids) for completion in completions]
    n_seq = max(len(prompt) + n for prompt, n in zip(prompts, lengths, strict=True))
    tokens = torch.zeros(n_rows, n_seq, dtype=torch.int64)
    logprobs = torch.zeros(n_rows, max(lengths))
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        sequence = [*prompt, *completion.token_ids]
        tokens[row, : len(sequence)] = torch.tensor(sequence)
        logprobs[row, : lengths[row]] = torch.tensor(completion.logprobs)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Rollout(
        tokens=tokens.to(device),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
        mask=mask.to(device),
        sampler_logprobs=logprobs.to(device),
        is_finished=torch.tensor([is_finished(c.finish_reason) for c in completions], device=device),
    )


def response_logprobs(model: Transformer, rollout: Rollout) -> Float[Tensor, "batch response"]:
    """log p of each response token given all before it, in nats; zero outside the mask.

    Logits are made for response tokens only: the prompt's would be thrown away. In float32 on a CPU, the sampler's
    own log-probs to the last bit.
    """
    hidden = right_padded_hidden(model, rollout.tokens)
    rows, steps = rollout.mask.nonzero(as_tuple=True)
    before = rollout.prompt_lengths[rows] + steps - 1
    chosen = gather_logprobs(model.logits(hidden[rows, before]), rollout.tokens[rows, before + 1])
    return torch.zeros_like(rollout.sampler_logprobs).index_put((rows, steps), chosen)


def response_values(critic: ScoreModel, rollout: Rollout) -> Float[Tensor, "batch response"]:
    """V(s_t): the critic's output on all that precedes each response token; zero outside the mask."""
    values = critic(rollout.tokens)
    rows, steps = rollout.mask.nonzero(as_tuple=True)
    before = rollout.prompt_lengths[rows] + steps - 1
    return torch.zeros_like(rollout.sampler_logprobs).index_put((rows, steps), values[rows, before].float())


def by_length(
    rollout: Rollout, n_rows: int, function: Callable[[Rollout], Tensor]
) -> Float[Tensor, "batch response"]:
    """The function over groups of similar length, so that little of the work is padding; order is kept."""
    order = (rollout.prompt_lengths + rollout.response_lengths).argsort(stable=True)
    result = torch.zeros_like(rollout.sampler_logprobs)
    for index in order.split(n_rows):
        part = rollout.rows(index)
        result[index, : part.mask.shape[1]] = function(part)
    return result
