"""Early stopping on held-out prompts: when PPO ends, and which policy it hands back (§3.2.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from puna.core.seeding import derive_seed
from puna.rlhf.experience import PPOModels, judge
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.prompts import EncodedPrompt
from puna.rlhf.rollout import sample

__all__ = ["EarlyStopping", "evaluate"]


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """What is known so far; the best policy's weights are kept beside it."""

    mean: float
    """Of the starting policy's held-out scores, in logits."""
    std: float
    """The same scores' spread: the unit of the objective."""
    best: float = 0.0
    """Highest objective; the starting policy's is 0 by construction."""
    best_iteration: int = 0
    n_without_gain: int = 0

    @classmethod
    def start(cls, metrics: Mapping[str, float]) -> "EarlyStopping":
        """From the starting policy's evaluation."""
        return cls(mean=metrics["score"], std=max(metrics["score_std"], 1e-6))

    def objective(self, metrics: Mapping[str, float], *, kl_coef: float) -> float:
        """Mean held-out R: scores whitened by the starting policy's mean and spread, less beta times the KL.

        Whitening each evaluation by its own mean would make all of them equal. Our choice.
        """
        return (metrics["score"] - self.mean) / self.std - kl_coef * metrics["kl"]

    def after(self, objective: float, iteration: int) -> "EarlyStopping":
        """The state once an evaluation is known; equal is no gain."""
        if objective > self.best:
            return replace(self, best=objective, best_iteration=iteration, n_without_gain=0)
        return replace(self, n_without_gain=self.n_without_gain + 1)

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def evaluate(
    models: PPOModels, prompts: Sequence[EncodedPrompt], config: PPOConfig, *, seed: int
) -> dict[str, float]:
    """Scores and KL of one response to each held-out prompt; the seeds are the same at every evaluation."""
    chosen = prompts[: config.early_stopping.max_prompts]
    seeds = [derive_seed(seed, "held out", row) for row in range(len(chosen))]
    completions = sample(models.engine, chosen, max_new_tokens=config.max_new_tokens, seeds=seeds)
    judged = judge(models, chosen, completions, config.reward, n_rows=config.micro_batch_size)
    spread = {"score": float(judged.scores.mean()), "score_std": float(judged.scores.std(unbiased=False))}
    return judged.metrics | spread
