"""Writes the sandbox to disk: raw documents, demonstrations and prompt sets, held-out ones included."""

from pydantic import Field, PositiveInt

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.records import Prompt, write_records
from puna.core.seeding import derive_seed
from puna.core.stage import Metrics, stage
from puna.sandbox.annotators import annotator_pool
from puna.sandbox.demonstrations import write_dialogs
from puna.sandbox.documents import write_documents
from puna.sandbox.open_preferences import open_comparisons
from puna.sandbox.prompts import adversarial_prompts, borderline_prompts, constraint_dialogs, helpful_prompts
from puna.sandbox.world import WORLD_VERSION

__all__ = ["SandboxConfig", "write_sandbox"]


class SandboxConfig(Settings):
    """How much of the farm to write down; the world and its held-out tasks are fixed."""

    n_documents: int = Field(default=12_000, ge=1)
    """Raw pretraining pages before planted defects."""
    n_dialogs: int = Field(default=3_000, ge=1)
    """SFT demonstrations; the paper has 27,540 (§3.1)."""
    n_open_comparisons: int = Field(default=10_000, ge=1)
    """Pairs of written answers, the open data that the reward models learn from besides their own (§3.2.2)."""
    prompts_per_round: tuple[PositiveInt, ...] = Field(
        default=(1_000, 2_000, 3_000, 4_000, 5_000), min_length=1
    )
    """Training prompts of each annotation round, for preferences and RLHF; a third of them adversarial or borderline.
    Rounds have prompts of their own and grow, as the paper's weekly batches did (Table 26)."""
    n_constraint_dialogs: int = Field(default=400, ge=1)
    """Dialogs for GAtt (§3.3)."""
    n_held_out: int = Field(default=240, ge=1)
    """Held-out prompts of each kind; dialogs with constraints are a third as many."""
    n_early_stopping: int = Field(default=128, ge=1)
    """Training-side prompts set aside for PPO's early stopping (§3.2.3); never used for evaluation."""


@stage("sandbox", labels={"world": str(WORLD_VERSION)})
def write_sandbox(config: SandboxConfig, context: StageContext) -> Metrics:
    """Write documents.jsonl.zst, dialogs.jsonl, open_comparisons.jsonl and prompts/*.jsonl.

    Held-out prompts ignore the seed. The label `world` guards against an artifact of an edited world.
    """
    folder, seed = context.folder, context.seed
    documents = write_documents(config.n_documents, seed=seed)
    dialogs = write_dialogs(config.n_dialogs, seed=seed)
    open_pairs = open_comparisons(config.n_open_comparisons, seed=seed, annotators=annotator_pool())
    prompt_sets = _training_prompts(config, seed) | _held_out_prompts(config)
    return {
        "documents": write_records(folder / "documents.jsonl.zst", documents),
        "dialogs": write_records(folder / "dialogs.jsonl", dialogs),
        "open_comparisons": write_records(folder / "open_comparisons.jsonl", open_pairs),
    } | {
        name: write_records(folder / "prompts" / f"{name}.jsonl", prompts)
        for name, prompts in prompt_sets.items()
    }


def _training_prompts(config: SandboxConfig, seed: int) -> dict[str, list[Prompt]]:
    """Two thirds everyday questions, one sixth each adversarial and borderline."""

    def mixed(name: str, n: int) -> list[Prompt]:
        own, n_safety = derive_seed(seed, name), n // 6
        helpful = helpful_prompts(
            n - 2 * n_safety, split="train", seed=own, constraint_fraction=0.3, history_fraction=0.2
        )
        adversarial = adversarial_prompts(n_safety, split="train", seed=own)
        borderline = borderline_prompts(n_safety, split="train", seed=own)
        return [*helpful, *adversarial, *borderline]

    rounds = {f"round-{k}": mixed(f"round-{k}", n) for k, n in enumerate(config.prompts_per_round, start=1)}
    n_red_team = max(1, sum(config.prompts_per_round) // 20)
    return {
        **rounds,
        "red_team": adversarial_prompts(n_red_team, split="train", seed=derive_seed(seed, "red-team")),
        "early_stopping": mixed("early-stopping", config.n_early_stopping),
        "constraints": constraint_dialogs(config.n_constraint_dialogs, split="train", seed=seed),
    }


def _held_out_prompts(config: SandboxConfig) -> dict[str, list[Prompt]]:
    n, fixed = config.n_held_out, WORLD_VERSION
    return {
        "held_out": [
            *helpful_prompts(n, split="held_out", seed=fixed),
            *adversarial_prompts(n, split="held_out", seed=fixed),
            *borderline_prompts(n, split="held_out", seed=fixed),
            *constraint_dialogs(max(1, n // 3), split="held_out", seed=fixed),
        ]
    }
