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
from puna.recipe.versions import PAPER_SCHEDULE, Version, check_schedule
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


class ExistingModel(Settings):
    """A model that people have already: Figure 4 starts from it, with its own tokenizer and chat template."""

    model: str
    """Folder of a Llama-family model in Hugging Face's layout; may start with ${PUNA_DATA}. `puna convert` makes one
    of a GGUF or Meta checkpoint."""


class Figure4Recipe(Settings):
    """Everything a run needs; exactly one of sandbox and real says where its data comes from."""

    title: str = "A Llama 2, raised"
    """Heading of the report."""
    machine: Machine = Machine()
    """Device, threads, speed, trackers and energy; nothing here changes what is learned."""
    sandbox: SandboxConfig | None = None
    """The closed world with ground truth."""
    real: RealInputs | None = None
    """Imported dialogs and preferences."""
    base: ExistingModel | None = None
    """In place of pretraining data, tokenizer and pretraining; None pretrains."""
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
    versions: tuple[Version, ...] = Field(default=PAPER_SCHEDULE, min_length=1)
    """The RLHF versions in order (§3.2.3); the default is the paper's five with PPO on top."""
    later_rewards: LaterRewards = "chat"
    """What the reward models of round 2 and later start from: the latest chat checkpoint, as §3.2.2 does, or the
    round before's reward model, for `later_reward_epochs`. The second is our choice, for time."""
    later_reward_epochs: float | None = Field(default=None, gt=0)
    """Epochs of those rounds; None is as in the first."""
    distillation: DistillationConfig = DistillationConfig()
    """Safety context distillation, gated by the safety reward model (§4.2.4)."""
    rejection_sampling: RejectionSamplingConfig = RejectionSamplingConfig()
    """Samples of every rejection-sampling version (§3.2.3)."""
    rlhf_finetuning: FinetuningConfig = FinetuningConfig()
    """Every rejection-sampling version on its selected samples (§3.2.3)."""
    gatt: GattConfig = GattConfig()
    """Ghost Attention dialogs (§3.3)."""
    gatt_finetuning: FinetuningConfig = FinetuningConfig()
    """Fine-tuning of a ghost_attention version on them, with selected samples beside them."""
    ppo: PPOConfig = PPOConfig()
    """PPO on top of a version (§3.2.3)."""
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

    @model_validator(mode="after")
    def _versions_make_sense(self) -> "Figure4Recipe":
        check_schedule(self.versions)
        if self.sandbox and len(self.sandbox.prompts_per_round) < self.n_rounds:
            raise ValueError(
                f"sandbox.prompts_per_round has {len(self.sandbox.prompts_per_round)} rounds, but versions holds "
                f"{self.n_rounds} rejection-sampling versions: give each a number of prompts"
            )
        return self

    @property
    def n_rounds(self) -> int:
        """Rounds of preferences, reward models and sampling: one per rejection-sampling version."""
        return sum(version.method == "rejection_sampling" for version in self.versions)


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
