"""The two reward models as RLHF uses them: loaded, checked against the policy's tokenizer, and asked for scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from puna.core.errors import CheckpointError
from puna.inference import Completion, score_sequences
from puna.model import ScoreModel, load_score_model
from puna.tokenizer import Tokenizer

__all__ = ["ROLES", "RewardModels", "finished_sequence", "load_reward_models", "score_completions"]

ROLES: tuple[Literal["helpfulness", "safety"], ...] = ("helpfulness", "safety")


class RewardModels(NamedTuple):
    """One model for each of the two scores (§3.2.2)."""

    helpfulness: ScoreModel
    safety: ScoreModel


def load_reward_models(
    folders: Mapping[str, Path], tokenizer: Tokenizer, *, device: torch.device
) -> RewardModels:
    """Load both; they read the policy's token ids, so their vocabulary must be the policy's.

    Raises:
        CheckpointError: a role is missing, or a reward model was trained with another tokenizer.
    """
    models = []
    for role in ROLES:
        if role not in folders:
            fix = "Pass the folder of that reward model."
            raise CheckpointError(
                where="reward_models", expected=f"one for {role}", got=f"{sorted(folders)}", fix=fix
            )
        if Tokenizer.load(folders[role]).encode(_PROBE) != tokenizer.encode(_PROBE):
            raise CheckpointError(
                where=str(folders[role]),
                expected="the tokenizer of the model that is sampled",
                got="another tokenizer",
                fix="Train the reward model from a chat model of the same family.",
            )
        models.append(load_score_model(folders[role], device=device).eval())
    return RewardModels(*models)


_PROBE = 'The quick brown fox, 1234 times: "Jumps" over a lazy dog?'
"""Text that two different tokenizers hardly cut alike."""


def finished_sequence(prompt: Sequence[int], completion: Completion, *, eos_id: int) -> list[int]:
    """Prompt and response as the reward model knows them, ending with eos.

    A response that did not end by itself gives its last token for the eos, so that no sequence outgrows the context.
    """
    response = list(completion.token_ids)
    if completion.finish_reason != "eos":
        response[-1:] = [eos_id]
    return [*prompt, *response]


def score_completions(
    models: RewardModels,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    *,
    eos_id: int,
    n_rows: int = 32,
) -> dict[str, list[float]]:
    """Logits of both reward models for each response, by role; n_rows of similar length are scored at once."""
    sequences = [
        finished_sequence(prompt, completion, eos_id=eos_id)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return {
        role: score_sequences(model, sequences, max_batch_size=n_rows)
        for role, model in zip(ROLES, models, strict=True)
    }
