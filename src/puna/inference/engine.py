"""Generation for rollouts, evaluation and chat: requests join and leave a running batch at every step.

The same request gives the same tokens and log-probs alone or beside others, after a cache hit, after preemption,
at any arrival order; docs/tutorials/inference.md says what holds on which device. One thread; the caller drives it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.core.errors import ShapeError
from puna.core.progress import Reporter, quiet
from puna.core.records import FinishReason
from puna.inference.attention_plan import Pieces
from puna.inference.block_pool import BlockPool
from puna.inference.logprobs import gather_logprobs
from puna.inference.penalties import penalize
from puna.inference.request import Completion, Request, TokenEvent
from puna.inference.runner import Runner, pool_blocks
from puna.inference.sampling import NOISE_TOKENS, SamplingConfig, noise_chunk, sample_tokens
from puna.inference.scheduler import Batch, Scheduler, n_blocks_for
from puna.inference.scheduler import Sequence as Running
from puna.inference.slots import SlotTable
from puna.inference.stop import StreamedText
from puna.inference.weights import compute_dtype
from puna.model.blockwise_attention import BLOCK_TOKENS, ROW_MULTIPLE
from puna.model.transformer import Transformer

__all__ = ["Completion", "Engine", "TextTokenizer"]


MAX_DRAWN_LOGITS = 2**22
"""Logits held at once while tokens are drawn on a CPU: 16 MB in float32. Our choice, by measurement."""


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


@dataclass(frozen=True, slots=True)
class _State:
    """What exists once the first request has come."""

    runner: Runner
    pool: BlockPool
    slots: SlotTable
    scheduler: Scheduler


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
        self._made: _State | None = None
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
        self._check(prompts, seeds)
        requests = [Request(prompt=p, sampling=sampling, seed=s) for p, s in zip(prompts, seeds, strict=True)]
        return self.run(requests, reporter=reporter)

    def run(self, requests: Sequence[Request], *, reporter: Reporter | None = None) -> list[Completion]:
        """The completions of these requests, in their order; if one is refused, none is left behind."""
        order = sorted(
            range(len(requests)), key=lambda i: (len(requests[i].prompt), tuple(requests[i].prompt))
        )
        place_of: dict[int, int] = {}
        completions: dict[int, Completion] = {}
        try:
            for index in order:
                place_of[self.submit(requests[index])] = index
            with (reporter or quiet()).track("Generating", total=len(requests), unit="sample") as progress:
                while len(completions) < len(requests):
                    before = len(completions)
                    for event in self.step():
                        if event.completion is not None and event.request_id in place_of:
                            completions[place_of[event.request_id]] = event.completion
                    if len(completions) > before:
                        progress.advance(len(completions) - before)
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
        state = self._state()
        n_prompt, context = len(request.prompt), self.model.config.max_seq_len
        request_id = self._n_submitted
        if not 0 < n_prompt < context:
            raise _no_room(f"request {request_id}", context, n_prompt)
        n_limit = min(n_prompt + request.sampling.max_new_tokens, context)
        if n_blocks_for(n_limit) > state.pool.n_usable:
            raise ShapeError(
                where=f"request {request_id}",
                expected=f"at most {state.pool.n_usable * BLOCK_TOKENS:,} tokens, prompt and response: the cache's",
                got=f"{n_limit:,}",
                fix="Lower max_new_tokens, shorten the prompt, or give the engine's cache more memory.",
            )
        self._n_submitted += 1
        running = Running(id=request_id, request=request, tokens=list(request.prompt), n_limit=n_limit)
        if request.wants_stream or request.sampling.stop:
            running.text = StreamedText(self.tokenizer.decode, request.sampling.stop)
        self._live[request_id] = running
        state.scheduler.waiting.append(running)
        return request_id

    def cancel(self, request_id: int) -> Completion | None:
        """Drop a request now: its slot and blocks are free before the next step. None if it has ended already."""
        running = self._live.get(request_id)
        if running is None:
            return None
        completion = self._completion(running, "cancelled")
        del self._live[request_id]
        self._state().scheduler.cancel(running)
        return completion

    @property
    def n_live(self) -> int:
        """Requests that wait or run."""
        return len(self._live)

    @property
    def n_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._made.scheduler.running) if self._made else 0

    @property
    def n_preemptions(self) -> int:
        """Times a running request gave its blocks to others, so far."""
        return self._made.scheduler.n_preemptions if self._made else 0

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """Advance every running request; returns the tokens of streamed ones and all completions."""
        state = self._state()
        batch = state.scheduler.next_batch()
        if batch is None:
            return []
        slots = state.slots
        pieces = Pieces(
            slots.tables[batch.slots],
            slots.n_computed[batch.slots],
            batch.n_tokens,
            slots.n_shared[batch.slots],
        )
        positions = pieces.positions()
        tokens = slots.tokens[batch.slots[pieces.owners()], positions]
        self.n_computed_tokens += len(tokens)
        hidden = state.runner.hidden(tokens, pieces, batch.copies)
        self._echo(batch, pieces, hidden)
        state.scheduler.advance(batch)
        is_due = slots.n_computed[batch.slots] == slots.n_tokens[batch.slots]
        if not is_due.any():
            return []
        last = torch.from_numpy((pieces.starts() + batch.n_tokens - 1)[is_due]).to(hidden.device)
        return self._draw(batch.slots[is_due], hidden[last])

    # Inside a step

    def _draw(self, at: NDArray[np.int64], hidden: Tensor) -> list[TokenEvent]:
        """Sample one token for each of these slots, from its last state, and see who has ended."""
        state = self._state()
        slots = state.slots
        running = {sequence.slot: sequence for sequence in state.scheduler.running}
        drawn = [running[slot] for slot in at.tolist()]
        n_drawn = slots.n_tokens[at] - slots.n_prompt[at]
        noise = torch.from_numpy(slots.noise[at, n_drawn % NOISE_TOKENS]).to(hidden.device)
        chosen, logprobs = [], []
        n_rows = self._n_rows_drawn(hidden.device)
        for start in range(0, len(drawn), n_rows):
            rows = slice(start, start + n_rows)
            logits = state.runner.logits(hidden[rows])
            chosen.append(self._sample(drawn[rows], logits, noise[rows]))
            logprobs.append(gather_logprobs(logits, chosen[-1]))
            self._top_logprobs(drawn[rows], logits)
        tokens, place = torch.cat(chosen).cpu().numpy(), slots.n_tokens[at]
        slots.tokens[at, place], slots.logprobs[at, place] = tokens, torch.cat(logprobs).cpu().numpy()
        slots.n_tokens[at] += 1
        n_drawn += 1
        for index in np.flatnonzero(n_drawn % NOISE_TOKENS == 0).tolist():
            slots.noise[at[index]] = noise_chunk(drawn[index].request.seed, int(n_drawn[index]))
        is_eos = np.isin(tokens, self.tokenizer.stop_ids)
        has_ended = is_eos | (slots.n_tokens[at] >= slots.n_limit[at])
        events = []
        for index, sequence in enumerate(drawn):
            if has_ended[index] or sequence.text is not None:
                event = self._tell(sequence, int(tokens[index]), bool(is_eos[index]), bool(has_ended[index]))
                if event is not None:
                    events.append(event)
        return events

    def _n_rows_drawn(self, device: torch.device) -> int:
        """Sequences whose logits are held at once: on a CPU as many as stay in its cache."""
        if device.type != "cpu":
            return self.max_batch_size
        return max(1, MAX_DRAWN_LOGITS // self.model.config.vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE

    def _tell(self, sequence: Running, token: int, is_eos: bool, has_ended: bool) -> TokenEvent | None:
        """The event of one sequence's new token, if anybody wants it; ends the sequence where it must."""
        reason: FinishReason | None = ("eos" if is_eos else "length") if has_ended else None
        text = ""
        if sequence.text is not None:
            text = "" if is_eos else sequence.text.add(token)
            if has_ended:
                text += sequence.text.finish()
            if sequence.text.is_stopped:
                reason = "stop"
        completion = None if reason is None else self._end(sequence, reason)
        if completion is None and not sequence.request.wants_stream:
            return None
        logprob = completion.logprobs[-1] if completion else self._last_logprob(sequence)
        return TokenEvent(sequence.id, [token], [logprob], text, completion)

    def _last_logprob(self, sequence: Running) -> float:
        slots = self._state().slots
        return float(slots.logprobs[sequence.slot, slots.n_tokens[sequence.slot] - 1])

    def _sample(self, drawn: Sequence[Running], logits: Tensor, noise: Tensor) -> Tensor:
        """Rows with the same settings are drawn together."""
        groups: dict[SamplingConfig, list[int]] = {}
        first = drawn[0].request.sampling
        if all(sequence.request.sampling is first for sequence in drawn):
            groups[first] = list(range(len(drawn)))
        else:
            for index, sequence in enumerate(drawn):
                groups.setdefault(sequence.request.sampling, []).append(index)
        chosen = torch.empty(len(drawn), dtype=torch.long, device=logits.device)
        for config, members in groups.items():
            rows = torch.tensor(members, device=logits.device)
            part = logits if len(members) == len(drawn) else logits[rows]
            if config.has_penalties:
                part = self._penalize([drawn[index] for index in members], part, config)
            chosen[rows] = sample_tokens(part, noise[rows], config)
        return chosen

    def _penalize(self, drawn: Sequence[Running], logits: Tensor, config: SamplingConfig) -> Tensor:
        slots = self._state().slots
        rows = [
            np.split(slots.tokens[s.slot, : slots.n_tokens[s.slot]], [slots.n_prompt[s.slot]]) for s in drawn
        ]
        return penalize(logits, [row[0] for row in rows], [row[1] for row in rows], config)

    def _top_logprobs(self, drawn: Sequence[Running], logits: Tensor) -> None:
        for index, sequence in enumerate(drawn):
            if sequence.request.n_top_logprobs:
                n_top = min(sequence.request.n_top_logprobs, logits.shape[1])
                values, ids = logits[index].log_softmax(-1).topk(n_top)
                sequence.top_logprobs.append(list(zip(ids.tolist(), values.tolist(), strict=True)))

    def _echo(self, batch: Batch, pieces: Pieces, hidden: Tensor) -> None:
        """Log-probs of the prompt tokens that follow this step's ones, for those who asked."""
        state = self._state()
        by_slot = {s.slot: s for s in state.scheduler.running if s.request.wants_echo}
        if not by_slot:
            return
        for index, slot in enumerate(batch.slots.tolist()):
            if slot in by_slot:
                first, start = int(pieces.first_positions[index]), int(pieces.starts()[index])
                known = by_slot[slot].prompt_logprobs
                begin = max(first, len(known))
                end = min(first + int(batch.n_tokens[index]), len(by_slot[slot].request.prompt) - 1)
                if begin < end:
                    states = hidden[start + begin - first : start + end - first]
                    targets = state.slots.tokens[slot, begin + 1 : end + 1]
                    logits = state.runner.logits(states)
                    found = gather_logprobs(logits, torch.from_numpy(targets).to(hidden.device))
                    known.extend(found.tolist())

    def _end(self, sequence: Running, reason: FinishReason) -> Completion:
        completion = self._completion(sequence, reason)
        del self._live[sequence.id]
        self._state().scheduler.leave(sequence)
        return completion

    def _completion(self, sequence: Running, reason: FinishReason) -> Completion:
        slots, n_prompt, slot = self._state().slots, len(sequence.request.prompt), sequence.slot
        if slot >= 0:
            sampled = slice(n_prompt, int(slots.n_tokens[slot]))
            token_ids, logprobs = slots.tokens[slot, sampled].tolist(), slots.logprobs[slot, sampled].tolist()
        else:
            token_ids, logprobs = sequence.tokens[n_prompt:], list(sequence.logprobs)
        return Completion(
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason=reason,
            text=sequence.text.text if reason == "stop" and sequence.text is not None else None,
            top_logprobs=sequence.top_logprobs,
            prompt_logprobs=sequence.prompt_logprobs,
        )

    def _state(self) -> _State:
        """The cache and the scheduler, made for the first request; prompts are forgotten when weights change."""
        made = self._made
        if made is not None and (self._live or made.runner.is_current()):
            return made
        if made is not None and made.runner.renew():
            made.pool.forget_prefixes()
            return made
        config, dtype = self.model.config, compute_dtype(self.model)
        n_slots = self.max_batch_size
        n_blocks = pool_blocks(
            config, n_slots=n_slots, cache_bytes=self._cache_bytes, dtype=dtype, device=self._device
        )
        pool, slots = BlockPool(n_blocks), SlotTable.empty(n_slots, config.max_seq_len)
        scheduler = Scheduler(pool, slots, max_step_tokens=self._max_step_tokens)
        runner = Runner(
            self.model,
            n_blocks=n_blocks,
            dtype=dtype,
            has_int8_weights=self._has_int8_weights,
            compiles=self._compiles,
        )
        self._made = _State(runner, pool, slots, scheduler)
        return self._made

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
                raise _no_room(f"prompt {index}", context, len(prompt))


def _no_room(where: str, context: int, n_tokens: int) -> ShapeError:
    return ShapeError(
        where=where,
        expected=f"1 to {context - 1} tokens, so that the context of {context} has room for an answer",
        got=f"{n_tokens}",
        fix="Shorten the prompt.",
    )
