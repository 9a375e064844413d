"""The reward models (§3.2.2): dialogs and answers in, scores out. All of puna that scores answers does it here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from puna.core.errors import CheckpointError, ConfigError, ShapeError
from puna.core.manifest import MANIFEST_NAME, fingerprint_input, read_manifest
from puna.core.records import REWARD_ROLES, FinishReason, RewardRole
from puna.inference.chat_model import Answer
from puna.inference.finish import is_finished
from puna.inference.request import Completion
from puna.inference.score import score_sequences
from puna.model.checkpoint import load_score_model
from puna.model.heads import ScoreModel
from puna.tokenizer import Tokenizer

__all__ = ["RewardModels", "as_probs", "check_tokenizer", "ended_sequence"]

PROBE = 'The quick brown fox, 1234 times:\n\n\t"Jumps" over a lazy dog? <s> [INST] é 漢字'
"""Text that two tokenizers with the same pieces and different rules hardly cut alike."""


def ended_sequence(
    prompt: Sequence[int], response: Sequence[int], reason: FinishReason, *, eos_id: int, max_tokens: int
) -> list[int]:
    """Prompt and response as a reward model knows them, ending with end-of-sequence.

    A response that a stop string ended gets the end token after it. A cut response gives its last token for it.
    """
    tokens = [*prompt, *response]
    if reason == "eos":
        return tokens
    if is_finished(reason) and len(tokens) < max_tokens:
        return [*tokens, eos_id]
    return [*tokens[: len(tokens) - bool(response)], eos_id]


def as_probs(logits: Sequence[float]) -> list[float]:
    """Scores after a sigmoid, in [0, 1]; under one half is unsafe for the safety role (Table 29)."""
    return torch.tensor(logits, dtype=torch.float64).sigmoid().tolist()


@dataclass(frozen=True)
class RewardModels:
    """Reward models by role, on one device; all read the tokens of one chat model."""

    models: dict[RewardRole, ScoreModel]
    eos_id: int
    fingerprints: dict[RewardRole, str] = field(default_factory=dict)
    """Of each model's artifact: scores of different reward models cannot be compared."""
    folders: dict[RewardRole, Path] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        folders: Mapping[str, Path],
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        roles: Sequence[str] | None = None,
    ) -> "RewardModels":
        """Read reward models that score a chat model's tokens.

        Args:
            folders: By role, helpfulness or safety.
            tokenizer: The chat model's: every reward model must read the same ids.
            roles: Those that are needed; None takes what is given.
        Raises:
            ConfigError: a role is missing or unknown, or a folder says that it was trained for the other one.
            CheckpointError: a reward model has another tokenizer.
        """
        named = list(folders if roles is None else roles)
        missing = [role for role in named if role not in folders]
        if missing or not set(folders) <= set(REWARD_ROLES):
            raise ConfigError(
                where="reward_models",
                expected=f"one for {missing[0]}" if missing else f"roles among {', '.join(REWARD_ROLES)}",
                got=", ".join(sorted(folders)) or "none",
                fix="Pass the folder of each reward model under its role.",
            )
        wanted = [role for role in REWARD_ROLES if role in named]
        for role in wanted:
            _check_role(folders[role], role)
            check_tokenizer(folders[role], tokenizer)
        return cls(
            models={role: load_score_model(folders[role], device=device).eval() for role in wanted},
            eos_id=tokenizer.eos_id,
            fingerprints={role: _fingerprint(folders[role]) for role in wanted},
            folders={role: folders[role] for role in wanted},
        )

    @property
    def max_seq_len(self) -> int:
        """Tokens that every one of them can read."""
        return min((model.trunk.config.max_seq_len for model in self.models.values()), default=0)

    def check_room(self, n_tokens: int) -> None:
        """Refuse reward models that could not read the longest prompt with its response.

        Raises:
            ShapeError: names the reward model; raised before anything is sampled.
        """
        for role, model in self.models.items():
            if model.trunk.config.max_seq_len < n_tokens:
                raise ShapeError(
                    where=str(self.folders[role]),
                    expected=f"a context of at least {n_tokens} tokens: the longest prompt and its response",
                    got=f"{model.trunk.config.max_seq_len} tokens",
                    fix="Lower max_new_tokens, leave the longer prompts out, or train this reward model with a longer "
                    "context.",
                )

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Completion],
        *,
        max_batch_size: int = 128,
    ) -> dict[RewardRole, list[float]]:
        """Logits of each response by role, in order; responses of similar length are scored together.

        Args:
            prompts: What each reward model reads before the response, as tokens.
        """
        if not self.models:
            return {}
        sequences = [
            ended_sequence(
                prompt,
                completion.token_ids,
                completion.finish_reason,
                eos_id=self.eos_id,
                max_tokens=self.max_seq_len,
            )
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return {
            role: score_sequences(model, sequences, max_batch_size=max_batch_size)
            for role, model in self.models.items()
        }

    def score_answers(
        self,
        answers: Sequence[Answer],
        *,
        prompts: Sequence[Sequence[int]] | None = None,
        max_batch_size: int = 128,
    ) -> dict[RewardRole, list[float]]:
        """Logits of answers by role.

        Args:
            prompts: What the reward models read instead of what the chat model was asked, such as the prompt without
                its safety preprompt.
        """
        read = [answer.prompt_ids for answer in answers] if prompts is None else prompts
        return self.score(read, [answer.completion for answer in answers], max_batch_size=max_batch_size)


def _check_role(folder: Path, role: RewardRole) -> None:
    """Refuse a reward model that its manifest names as the other one; folders from elsewhere name none."""
    is_artifact = (folder / MANIFEST_NAME).is_file()
    trained_for = read_manifest(folder).labels.get("role", role) if is_artifact else role
    if trained_for != role:
        raise ConfigError(
            where=str(folder),
            expected=f"a {role} reward model",
            got=f"one that was trained for {trained_for}",
            fix=f"Pass the {role} reward model's folder.",
        )


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuse a reward model that does not read a chat model's tokens.

    Raises:
        CheckpointError: it has another tokenizer.
    """
    other = Tokenizer.load(folder)
    is_same = (
        other.vocab_size == tokenizer.vocab_size
        and other.pieces(range(other.vocab_size)) == tokenizer.pieces(range(tokenizer.vocab_size))
        and other.encode(PROBE) == tokenizer.encode(PROBE)
        and other.eos_id == tokenizer.eos_id
    )
    if not is_same:
        raise CheckpointError(
            where=str(folder),
            expected="the tokenizer of the chat model whose answers it scores",
            got="another tokenizer",
            fix="Train the reward model from a chat model of the same family.",
        )


def _fingerprint(folder: Path) -> str:
    is_artifact = (folder / MANIFEST_NAME).is_file()
    return read_manifest(folder).fingerprint if is_artifact else fingerprint_input(folder)
