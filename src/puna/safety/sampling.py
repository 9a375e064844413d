"""One response a prompt from a model artifact, and what reward models say of it: what the safety stages share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from puna.core.errors import CheckpointError
from puna.core.records import Message
from puna.inference import Completion, Engine, SamplingConfig, score_sequences
from puna.model import load_model, load_score_model
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["Answer", "Judges", "Responder"]


class Answer(NamedTuple):
    """A sampled response."""

    completion: Completion
    text: str

    @property
    def is_finished(self) -> bool:
        """Ended by eos and not empty."""
        return self.completion.finish_reason == "eos" and bool(self.text)


class Responder:
    """A chat model that answers."""

    def __init__(self, model: Path, sampling: SamplingConfig, *, device: torch.device) -> None:
        self.tokenizer = Tokenizer.load(model)
        transformer = load_model(model, device=device)
        self._engine = Engine(transformer, self.tokenizer)
        self._sampling = sampling
        self._room = transformer.config.max_seq_len - sampling.max_new_tokens

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether the prompt leaves room for an answer."""
        return len(render_prompt(messages, self.tokenizer)) <= self._room

    def answer(self, prompts: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[Answer]:
        """One answer a prompt."""
        token_ids = [render_prompt(messages, self.tokenizer) for messages in prompts]
        completions = self._engine.generate(token_ids, self._sampling, seeds=seeds)
        return [Answer(completion, self._engine.text(completion)) for completion in completions]


class Judges:
    """Reward models by role."""

    def __init__(self, folders: Mapping[str, Path], tokenizer: Tokenizer, *, device: torch.device) -> None:
        """Load them; they read the responder's tokens, so the vocabularies must be one."""
        self._tokenizer = tokenizer
        self._models = {}
        for role, folder in folders.items():
            n_pieces = Tokenizer.load(folder).vocab_size
            if n_pieces != tokenizer.vocab_size:
                raise CheckpointError(
                    where=str(folder),
                    expected=f"the chat model's tokenizer, {tokenizer.vocab_size} pieces",
                    got=f"one of {n_pieces}",
                    fix="Train the reward model from a chat model of the same family.",
                )
            self._models[role] = load_score_model(folder, device=device).eval()

    def score(
        self, prompts: Sequence[Sequence[Message]], answers: Sequence[Answer]
    ) -> list[dict[str, float]]:
        """Each answer's probabilities by role. A cut answer's last token gives way to the eos that the models know."""
        sequences = []
        for messages, answer in zip(prompts, answers, strict=True):
            response = list(answer.completion.token_ids)
            if answer.completion.finish_reason == "length":
                response[-1:] = [self._tokenizer.eos_id]
            sequences.append([*render_prompt(messages, self._tokenizer), *response])
        by_role = {role: _sigmoid(score_sequences(model, sequences)) for role, model in self._models.items()}
        return [{role: values[row] for role, values in by_role.items()} for row in range(len(sequences))]


def _sigmoid(logits: Sequence[float]) -> list[float]:
    return torch.tensor(logits, dtype=torch.float64).sigmoid().tolist()
