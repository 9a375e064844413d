"""A chat model: dialogs in, answers out. Everything of puna that asks a model something asks it here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from puna.core.artifacts import read_manifest
from puna.core.manifest import MANIFEST_NAME, fingerprint_input
from puna.core.progress import Reporter
from puna.core.records import FinishReason, Message, Provenance
from puna.inference.engine import Engine
from puna.inference.finish import is_finished
from puna.inference.request import Completion
from puna.inference.sampling import SamplingConfig
from puna.model.checkpoint import load_model
from puna.model.transformer import Transformer
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["Answer", "ChatModel"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled response, with the tokens that were read and drawn."""

    prompt_ids: list[int]
    """The rendered dialog."""
    completion: Completion
    """Tokens, log-probabilities in nats, and why it ended."""
    text: str
    """Without special tokens and without the stop string."""

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        return self.completion.finish_reason

    @property
    def is_finished(self) -> bool:
        """It ended by itself and says something."""
        return is_finished(self.finish_reason) and bool(self.text)


@dataclass(frozen=True)
class ChatModel:
    """A model folder, loaded: weights, tokenizer with its chat template, engine, and where it came from."""

    folder: Path
    transformer: Transformer
    tokenizer: Tokenizer
    engine: Engine

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, max_batch_size: int = 256) -> "ChatModel":
        """Read a model folder onto a device.

        Args:
            max_batch_size: Responses sampled at once, for memory and speed only.
        Raises:
            CheckpointError: the folder holds no Llama model, or a damaged one.
        """
        transformer = load_model(folder, device=device).eval()
        tokenizer = Tokenizer.load(folder)
        return cls(
            folder, transformer, tokenizer, Engine(transformer, tokenizer, max_batch_size=max_batch_size)
        )

    @property
    def max_seq_len(self) -> int:
        """Tokens of the context."""
        return self.transformer.config.max_seq_len

    @cached_property
    def fingerprint(self) -> str:
        """Of the artifact; of the files' content where the folder has no manifest."""
        if (self.folder / MANIFEST_NAME).is_file():
            return read_manifest(self.folder).fingerprint
        return fingerprint_input(self.folder)

    @cached_property
    def version(self) -> str:
        """Name within the recipe, such as rlhf-v1; the folder's name where there is no manifest."""
        name = self.folder.absolute().name  # of "." too
        if (self.folder / MANIFEST_NAME).is_file():
            return read_manifest(self.folder).labels.get("version", name)
        return name

    def provenance(self, sampling: SamplingConfig, seed: int) -> Provenance:
        """The record of one response's origin."""
        return Provenance(
            model=self.fingerprint,
            version=self.version,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
        )

    def render(self, messages: Sequence[Message]) -> list[int]:
        """The dialog's tokens, up to where the answer begins, by the model's own template.

        Raises:
            ProtocolError: the dialog does not end with the user, or holds a special tag.
        """
        return render_prompt(messages, self.tokenizer)

    def room(self, sampling: SamplingConfig) -> int:
        """The most prompt tokens that leave room for a whole response."""
        return self.max_seq_len - sampling.max_new_tokens

    def answer(
        self,
        prompts: Sequence[Sequence[Message]] | Sequence[list[int]],
        sampling: SamplingConfig,
        *,
        seeds: Sequence[int],
        reporter: Reporter | None = None,
    ) -> list[Answer]:
        """One answer per prompt, in order; each depends on its prompt, its seed and the weights only.

        Args:
            prompts: Dialogs that end with the user, or their tokens as `render` gives them.
            seeds: One per prompt.
        """
        prompt_ids = [_tokens(prompt) or self.render(prompt) for prompt in prompts]  # type: ignore[arg-type]
        completions = self.engine.generate(prompt_ids, sampling, seeds=seeds, reporter=reporter)
        return [
            Answer(ids, completion, self.engine.text(completion))
            for ids, completion in zip(prompt_ids, completions, strict=True)
        ]


def _tokens(prompt: Sequence[Message] | list[int]) -> list[int] | None:
    """The prompt where it is tokens already."""
    return list(prompt) if prompt and isinstance(prompt[0], int) else None  # type: ignore[arg-type]
