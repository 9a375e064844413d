"""Settings of a whole run: one section a box of Figure 4."""

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.core.machine import Machine
from puna.evaluation.config import EvaluationConfig
from puna.ghost_attention.stage import GattConfig
from puna.human_feedback.config import PreferencesConfig
from puna.human_feedback.importers import PreferenceImportConfig
from puna.pretraining.config import PretrainingConfig
from puna.pretraining_data.shards import ShardConfig
from puna.pretraining_data.stage import DataConfig
from puna.recipe.prompt_sets import PromptSetsConfig
from puna.reward_modeling.config import RewardModelConfig
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.rejection_sampling import RejectionSamplingConfig
from puna.safety.context_distillation import DistillationConfig
from puna.safety.score_shift import ShiftConfig
from puna.sandbox.stage import SandboxConfig
from puna.supervised_finetuning.config import FinetuningConfig
from puna.supervised_finetuning.importers import DialogImportConfig
from puna.tokenizer.train import TokenizerConfig

__all__ = ["Figure4Recipe", "RealInputs", "builtin_recipe"]


LaterRewards = Literal["chat", "previous"]


class RealInputs(Settings):
    """Files people have, in place of the sandbox; pretraining sources stand in the data section."""

    dialogs: DialogImportConfig
    """Instructions and conversations for SFT."""
    preferences: PreferenceImportConfig
    """Pairs for the reward models."""
    prompts: PromptSetsConfig
    """Prompts for RLHF and evaluation, cut from both."""


class Figure4Recipe(Settings):
    """Everything a run needs; exactly one of sandbox and real says where its data comes from."""

    title: str = "A Llama 2, raised"
    """Heading of the report."""
    machine: Machine = Machine()
    """Where it runs; no part of what is learned."""
    sandbox: SandboxConfig | None = None
    """The closed world with ground truth."""
    real: RealInputs | None = None
    """Imported dialogs and preferences."""
    data: DataConfig = DataConfig()
    """Cleaning, deduplication and mixture (§2.1)."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """SentencePiece BPE (§2.2.1)."""
    shards: ShardConfig = ShardConfig()
    """Token files."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """Self-supervised learning (§2.2)."""
    sft: FinetuningConfig = FinetuningConfig()
    """Supervised fine-tuning (§3.1)."""
    sft_variant: FinetuningConfig | None = None
    """A second SFT model, so that the first round too compares two variants (§3.2.1); None samples one twice."""
    preferences: PreferencesConfig = PreferencesConfig()
    """Collection with simulated annotators, a round a version (§3.2.1); unused with real preferences."""
    helpfulness_reward: RewardModelConfig = RewardModelConfig()
    """§3.2.2"""
    safety_reward: RewardModelConfig = RewardModelConfig()
    """§3.2.2"""
    later_rewards: LaterRewards = "chat"
    """What the reward models of round 2 and later start from: the latest chat checkpoint, as §3.2.2 does, or the
    round before's reward model, for `later_reward_epochs`. The second is our choice, for time."""
    later_reward_epochs: float | None = Field(default=None, gt=0)
    """Epochs of those rounds; None is as in the first."""
    distillation: DistillationConfig = DistillationConfig()
    """Safety context distillation, gated by the safety reward model (§4.2.4)."""
    rejection_sampling: RejectionSamplingConfig = RejectionSamplingConfig()
    """V1 and V2 (§3.2.3); V3 too, whose checkpoint PPO starts from."""
    rlhf_finetuning: FinetuningConfig = FinetuningConfig()
    """Every version is fine-tuned on its selected samples for a constant number of steps (§3.2.3)."""
    rlhf_starts_from: Literal["base", "sft"] = "base"
    """§3.2.3 restarts every version from the base model."""
    gatt: GattConfig = GattConfig()
    """Ghost Attention data, sampled from V3 (§3.3)."""
    gatt_finetuning: FinetuningConfig = FinetuningConfig()
    """Fine-tuning of V3 on it, with its selected samples beside it."""
    ppo: PPOConfig = PPOConfig()
    """PPO on top of V3's checkpoint (§3.2.3)."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Every version on the held-out prompts."""
    score_shift: ShiftConfig = ShiftConfig()
    """Scores before and after safety tuning (Figure 14)."""
    n_annotators: int = Field(default=4, ge=1)
    """Simulated annotators, of uneven care."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Figure4Recipe":
        if (self.sandbox is None) == (self.real is None):
            raise ValueError("a recipe has either a [sandbox] or a [real] section")
        return self


def builtin_recipe(name: str) -> Path:
    """Path of a recipe that puna ships.

    Raises:
        ConfigError: there is none of this name; lists those there are.
    """
    packaged = Path(str(resources.files("puna"))) / "recipes"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "recipes"
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise ConfigError(
            where=name, expected=f"a .toml file or one of {known}", got=name, fix="Check the name."
        )
    return path
