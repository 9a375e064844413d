"""Generation for rollouts, evaluation and chat: requests join and leave a running batch at every step.

A step schedules, runs the model, and draws what is due. The same request gives the same tokens and log-probs alone or
beside others, after a cache hit, after preemption, at any arrival order; docs/tutorials/inference.md says what holds on
which device. One thread; the caller drives it.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.core.progress import Reporter, quiet
from puna.core.records import FinishReason
from puna.inference.admission import check_batch, check_prompt, length_limit
from puna.inference.attention_plan import Pieces
from puna.inference.drawing import draw, rows_drawn
from puna.inference.echo import echo_prompts
from puna.inference.parts import Parts
from puna.inference.request import Completion, Request, TokenEvent
from puna.inference.sampling import SamplingConfig
from puna.inference.scheduler import Batch
from puna.inference.sequence import Sequence as Running
from puna.inference.stop import StreamedText
from puna.model.transformer import Transformer

__all__ = ["Completion", "Engine", "TextTokenizer"]


@runtime_checkable
class TextTokenizer(Protocol):
    """What generation needs of a tokenizer."""

    @property
    def stop_ids(self) -> Sequence[int]:
        """The tokens that end a response: end-of-sequence, and a chat template's own end of turn."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the tokens."""
        ...


class Engine:
    """Generates with one model, on that model's device and in its dtype (or autocast's)."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: TextTokenizer,
        *,
        max_batch_size: int = 256,
        max_step_tokens: int = 2048,
        cache_bytes: int | None = None,
        has_int8_weights: bool = False,
        compiles: bool = False,
    ) -> None:
        """
        Args:
            max_batch_size: Sequences that run at once.
            max_step_tokens: Tokens of one step, prompts and responses together.
            cache_bytes: Memory for keys and values; by default a share of what is free.
            has_int8_weights: Generate from 8-bit copies of the weights (`quantize`).
            compiles: Compile the layers by torch.compile. Bits are then the compiler's; takes a copy of the weights.
        """
        self.model, self.tokenizer, self.max_batch_size = model, tokenizer, max_batch_size
        self._max_step_tokens = max(max_step_tokens, max_batch_size)
        self._cache_bytes, self._has_int8_weights, self._compiles = cache_bytes, has_int8_weights, compiles
        self._parts: Parts | None = None
        self._has_stale_weights = False
        self._live: dict[int, Running] = {}
        self._n_submitted = 0
        self.n_computed_tokens = 0
        """Tokens that went through the model, so far; a shared prompt counts once."""

    # The batch interface

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
        check_batch(self.model.config, prompts, seeds)
        requests = [Request(prompt=p, sampling=sampling, seed=s) for p, s in zip(prompts, seeds, strict=True)]
        return self.run(requests, reporter=reporter)

    def run(self, requests: Sequence[Request], *, reporter: Reporter | None = None) -> list[Completion]:
        """The completions of these requests, in their order; if one is refused, none is left behind."""
        by_prompt = sorted(
            range(len(requests)), key=lambda i: (len(requests[i].prompt), tuple(requests[i].prompt))
        )
        place_of: dict[int, int] = {}
        completions: dict[int, Completion] = {}
        try:
            for index in by_prompt:
                place_of[self.submit(requests[index])] = index
            with (reporter or quiet()).track("Generating", total=len(requests), unit="sample") as progress:
                while len(completions) < len(requests):
                    ended = {e.request_id: e.completion for e in self.step() if e.completion is not None}
                    new = {place_of[key]: value for key, value in ended.items() if key in place_of}
                    completions |= new
                    if new:
                        progress.advance(len(new))
        finally:
            for request_id in place_of:
                self.cancel(request_id)
        return [completions[index] for index in range(len(requests))]

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Events of one request as they come; closing the iterator early cancels it."""
        request_id = self.submit(request)
        try:
            while request_id in self._live:
                yield from (event for event in self.step() if event.request_id == request_id)
        finally:
            self.cancel(request_id)

    def text(self, completion: Completion) -> str:
        """The response without its end-of-sequence token, stop string and surrounding white space."""
        if completion.text is not None:
            return completion.text.strip()
        ids = completion.token_ids
        return self.tokenizer.decode(ids[:-1] if completion.finish_reason == "eos" else ids).strip()

    # The step interface

    def submit(self, request: Request) -> int:
        """Queue a request; returns its id.

        Raises:
            ShapeError: the prompt is empty, leaves no room in the context, or can never fit the cache.
        """
        parts, where = self._ready(), f"request {self._n_submitted}"
        check_prompt(self.model.config, request.prompt, where=where)
        n_limit = length_limit(self.model.config, request, n_usable_blocks=parts.pool.n_usable, where=where)
        request_id = self._n_submitted
        self._n_submitted += 1
        running = Running(id=request_id, request=request, tokens=list(request.prompt), n_limit=n_limit)
        if request.wants_stream or request.sampling.stop:
            running.text = StreamedText(self.tokenizer.decode, request.sampling.stop)
        self._live[request_id] = running
        parts.scheduler.waiting.append(running)
        return request_id

    def cancel(self, request_id: int) -> Completion | None:
        """Drop a request now: its slot and blocks are free before the next step. None if it has ended already."""
        running = self._live.get(request_id)
        return None if running is None else self._end(running, "cancelled")

    def refresh(self) -> None:
        """The model's weights have changed: take them as they are, and forget what was computed with the old ones.

        Whoever trains the model calls this after an update or after loading other weights. It takes effect once no
        request waits or runs; train between requests, as one under way would see old keys with new weights.
        """
        self._has_stale_weights = True

    @property
    def n_live(self) -> int:
        """Requests that wait or run."""
        return len(self._live)

    @property
    def n_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._parts.scheduler.running) if self._parts else 0

    @property
    def n_preemptions(self) -> int:
        """Times a running request gave its blocks to others, so far."""
        return self._parts.scheduler.n_preemptions if self._parts else 0

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """Advance every running request; returns the tokens of streamed ones and all completions."""
        parts = self._ready()
        batch = parts.scheduler.schedule()
        if batch is None:
            return []
        pieces, hidden = self._run(parts, batch)
        return self._postprocess(parts, batch, pieces, hidden)

    # Inside a step

    def _run(self, parts: Parts, batch: Batch) -> tuple[Pieces, Tensor]:
        """The step's tokens through the model; their states are in the order of the pieces."""
        slots, at = parts.slots, batch.slots
        pieces = Pieces(slots.tables[at], slots.n_computed[at], batch.n_tokens, slots.n_shared[at])
        tokens = slots.tokens[at[pieces.owners()], pieces.positions()]
        self.n_computed_tokens += len(tokens)
        return pieces, parts.runner.hidden(tokens, pieces, batch.copies)

    def _postprocess(self, parts: Parts, batch: Batch, pieces: Pieces, hidden: Tensor) -> list[TokenEvent]:
        """Echo prompts, draw a token for every sequence whose known ones are computed, and end what has ended."""
        slots, scheduler, logits_of = parts.slots, parts.scheduler, parts.runner.logits
        echo_prompts(scheduler.running, batch, pieces, hidden, slots, logits_of=logits_of)
        scheduler.advance(batch)
        is_due = slots.n_computed[batch.slots] == slots.n_tokens[batch.slots]
        if not is_due.any():
            return []
        last = torch.from_numpy((pieces.starts() + batch.n_tokens - 1)[is_due]).to(hidden.device)
        running = {sequence.slot: sequence for sequence in scheduler.running}
        drawn = [running[slot] for slot in batch.slots[is_due].tolist()]
        tokens = draw(drawn, hidden[last], slots, logits_of=logits_of, n_rows=self._n_rows_drawn)
        return self._events(parts, drawn, tokens)

    @property
    def _n_rows_drawn(self) -> int:
        device, vocab_size = self.model.tok_embeddings.weight.device, self.model.config.vocab_size
        return rows_drawn(device, vocab_size=vocab_size, max_batch_size=self.max_batch_size)

    def _events(self, parts: Parts, drawn: Sequence[Running], tokens: NDArray[np.int64]) -> list[TokenEvent]:
        """What somebody wants to know of the new tokens; sequences that have ended leave."""
        at = np.array([sequence.slot for sequence in drawn])
        is_eos = np.isin(tokens, self.tokenizer.stop_ids)
        is_full = parts.slots.n_tokens[at] >= parts.slots.n_limit[at]
        events = []
        for index in range(len(drawn)):
            sequence = drawn[index]
            if is_eos[index] or is_full[index] or sequence.text is not None:
                reason: FinishReason | None = "eos" if is_eos[index] else "length" if is_full[index] else None
                event = self._tell(parts, sequence, int(tokens[index]), reason)
                events += [] if event is None else [event]
        return events

    def _tell(
        self, parts: Parts, sequence: Running, token: int, reason: FinishReason | None
    ) -> TokenEvent | None:
        """The event of one sequence's new token, if anybody wants it; ends the sequence where it must."""
        text = ""
        if sequence.text is not None:
            text = "" if reason == "eos" else sequence.text.add(token)
            if reason is not None:
                text += sequence.text.finish()
            if sequence.text.is_stopped:
                reason = "stop"
        if reason is not None:
            completion = self._end(sequence, reason)
            return TokenEvent(sequence.id, [token], [completion.logprobs[-1]], text, completion)
        if not sequence.request.wants_stream:
            return None
        return TokenEvent(sequence.id, [token], [parts.slots.last_logprob(sequence)], text)

    def _end(self, sequence: Running, reason: FinishReason) -> Completion:
        """The sequence leaves wherever it is; its slot and blocks are free at once."""
        parts = self._ready()
        parts.scheduler.cancel(sequence)
        del self._live[sequence.id]
        token_ids, logprobs = parts.slots.response(sequence)
        return Completion(
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason=reason,
            text=sequence.text.text if reason == "stop" and sequence.text is not None else None,
            top_logprobs=sequence.top_logprobs,
            prompt_logprobs=sequence.prompt_logprobs,
        )

    def _ready(self) -> Parts:
        """The parts, made for the first request, with the weights as they are while nothing is under way."""
        if self._parts is not None and self._live:
            return self._parts
        if self._parts is None or not self._parts.fits_precision():
            self._parts = Parts.make(
                self.model,
                n_slots=self.max_batch_size,
                max_step_tokens=self._max_step_tokens,
                cache_bytes=self._cache_bytes,
                has_int8_weights=self._has_int8_weights,
                compiles=self._compiles,
            )
        elif self._has_stale_weights:
            self._parts.renew()
        self._has_stale_weights = False
        return self._parts
