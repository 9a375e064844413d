"""Batched generation with a key-value cache: one prefill for equal prompts, one step a token for all rows.

Serves rollouts, evaluation and chat. Batches are fixed once they start: no request joins a running one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.core.errors import ShapeError
from puna.core.progress import Reporter, quiet
from puna.inference.logprobs import gather_logprobs
from puna.inference.sampling import SamplingConfig, draw_noise, sample_tokens
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer

__all__ = ["Completion", "Engine", "TextTokenizer"]


@runtime_checkable
class TextTokenizer(Protocol):
    """What generation needs of a tokenizer."""

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    token_ids: list[int]
    """Sampled tokens; the last is end-of-sequence if that was sampled."""
    logprobs: list[float]
    """Nats, under the model's own distribution: before temperature and top-p."""
    finish_reason: Literal["eos", "length"]


class Engine:
    """Generates with one model, on that model's device and in its dtype."""

    def __init__(self, model: Transformer, tokenizer: TextTokenizer, *, max_batch_size: int = 128) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch_size = max_batch_size

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        *,
        seeds: Sequence[int],
        reporter: Reporter | None = None,
    ) -> list[Completion]:
        """One completion a prompt, in the prompts' order; repeat a prompt to draw several.

        Args:
            seeds: One a prompt; a sample's randomness is its own, whatever is generated beside it.
        Raises:
            ShapeError: a prompt is empty or leaves no room in the context, or the seeds do not match the prompts.
        """
        self._check(prompts, seeds)
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), tuple(prompts[index])))
        completions: dict[int, Completion] = {}
        with (reporter or quiet()).track("Generating", total=len(prompts), unit="sample") as progress:
            for start in range(0, len(order), self.max_batch_size):
                batch = order[start : start + self.max_batch_size]
                rows = self._generate_batch([prompts[i] for i in batch], sampling, [seeds[i] for i in batch])
                completions |= zip(batch, rows, strict=True)
                progress.advance(len(batch))
        return [completions[index] for index in range(len(prompts))]

    def text(self, completion: Completion) -> str:
        """The response without its end-of-sequence token and surrounding white space."""
        ids = completion.token_ids
        return self.tokenizer.decode(ids[:-1] if completion.finish_reason == "eos" else ids).strip()

    @torch.inference_mode()
    def _generate_batch(
        self, prompts: list[Sequence[int]], sampling: SamplingConfig, seeds: list[int]
    ) -> list[Completion]:
        """Decode all rows together; finished rows leave the batch once they are half of it."""
        room = [self.model.config.max_seq_len - len(prompt) for prompt in prompts]
        limits = torch.tensor(room, device=self._device).clamp(max=sampling.max_new_tokens)
        n_steps = int(limits.max())
        noise = draw_noise(seeds, n_steps).to(self._device)
        cache, logits = self._prefill(prompts, n_steps)
        tokens = torch.zeros(len(prompts), n_steps, dtype=torch.long, device=self._device)
        logprobs = torch.zeros(len(prompts), n_steps, device=self._device)
        lengths = limits.clone()
        rows = torch.arange(len(prompts), device=self._device)
        for step in range(n_steps):
            token = sample_tokens(logits, noise[rows, step], sampling)
            tokens[rows, step], logprobs[rows, step] = token, gather_logprobs(logits, token)
            is_running = step < lengths[rows]
            lengths[rows] = torch.where(
                is_running & (token == self.tokenizer.eos_id), step + 1, lengths[rows]
            )
            running = (lengths[rows] > step + 1).nonzero().squeeze(1)
            if len(running) == 0:
                break
            if 2 * len(running) <= len(rows):
                rows, token, cache = rows[running], token[running], cache.select(running)
            logits = self.model.logits(self.model.hidden(token[:, None], cache=cache)[:, -1])
        return self._completions(tokens, logprobs, lengths)

    def _prefill(
        self, prompts: list[Sequence[int]], n_steps: int
    ) -> tuple[KVCache, Float[Tensor, "batch vocab"]]:
        """Read each distinct prompt once, padded on the left, and copy its cache to all its rows."""
        distinct = {tuple(prompt): None for prompt in prompts}
        index_of = {prompt: index for index, prompt in enumerate(distinct)}
        longest = max(map(len, distinct))
        padding = [longest - len(prompt) for prompt in distinct]
        padded = [[0] * n + list(prompt) for n, prompt in zip(padding, distinct, strict=True)]
        cache = KVCache(
            self.model.config,
            batch_size=len(distinct),
            max_len=longest + n_steps,
            n_padding=torch.tensor(padding, device=self._device) if any(padding) else None,
            dtype=self.model.tok_embeddings.weight.dtype,
            device=self._device,
        )
        hidden = self.model.hidden(torch.tensor(padded, device=self._device), cache=cache)
        rows = torch.tensor([index_of[tuple(prompt)] for prompt in prompts], device=self._device)
        logits = self.model.logits(hidden[:, -1])[rows]
        return (cache if len(distinct) == len(prompts) else cache.select(rows)), logits

    def _completions(
        self,
        tokens: Int[Tensor, "batch seq"],
        logprobs: Float[Tensor, "batch seq"],
        lengths: Int[Tensor, " batch"],
    ) -> list[Completion]:
        table = zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), strict=True)
        return [
            Completion(
                token_ids=ids[:length],
                logprobs=values[:length],
                finish_reason="eos" if ids[length - 1] == self.tokenizer.eos_id else "length",
            )
            for ids, values, length in table
        ]

    @property
    def _device(self) -> torch.device:
        return self.model.tok_embeddings.weight.device

    def _check(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        context = self.model.config.max_seq_len
        if len(seeds) != len(prompts):
            raise ShapeError(
                where="generate",
                expected=f"{len(prompts)} seeds",
                got=f"{len(seeds)}",
                fix="Give one a prompt.",
            )
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) < context:
                raise ShapeError(
                    where=f"prompt {index}",
                    expected=f"1 to {context - 1} tokens, so that the context of {context} has room for an answer",
                    got=f"{len(prompt)}",
                    fix="Shorten the prompt.",
                )
