"""Figure 4 of the paper: pretraining, supervised fine-tuning, human feedback, and RLHF round after round.

Each method is one arrow or box and calls one stage; all they share is folders. Reading `raise_llama` top to
bottom is reading the figure left to right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from puna.core.artifacts import run_lock
from puna.core.errors import ConfigError
from puna.core.progress import Reporter
from puna.core.records import Domain
from puna.core.seeding import derive_seed
from puna.core.side_by_side import Job, run_side_by_side
from puna.evaluation.harness import evaluate_version
from puna.ghost_attention.stage import build_gatt_data
from puna.human_feedback.importers import import_preferences
from puna.human_feedback.pairs import collect_preferences
from puna.pretraining.stage import pretrain
from puna.pretraining_data.shards import tokenize
from puna.pretraining_data.stage import build_corpus
from puna.recipe.prompt_sets import build_prompt_sets
from puna.recipe.settings import Figure4Recipe, RealInputs
from puna.reporting.report import build_report
from puna.reward_modeling.stage import train_reward_model
from puna.rlhf.ppo import train_ppo
from puna.rlhf.rejection_sampling import sample_candidates
from puna.safety.context_distillation import distill
from puna.safety.score_shift import score_shift
from puna.sandbox import Oracle, annotator_pool
from puna.sandbox.stage import write_sandbox
from puna.supervised_finetuning.config import FinetuningConfig
from puna.supervised_finetuning.importers import import_dialogs
from puna.supervised_finetuning.stage import finetune
from puna.tokenizer.train import build_tokenizer

__all__ = ["STAGES", "raise_llama"]

STAGES = (
    "data",
    "tokenizer",
    "pretraining",
    "sft",
    "rlhf-v1",
    "rlhf-v2",
    "rlhf-v3",
    "ghost-attention",
    "ppo",
    "evaluation",
    "report",
)
"""Where `--until` can stop."""

ROUND_MODELS = ("sft", "rlhf-v1", "rlhf-v2", "rlhf-v3")
"""Round k samples from model k - 1 and trains model k."""


def raise_llama(
    recipe: Figure4Recipe, *, out: Path, seed: int, reporter: Reporter, until: str | None = None
) -> None:
    """Run the recipe into `out`; finished stages are skipped, an interrupted one resumes.

    Raises:
        RunLockedError: another process runs into the same folder.
    """
    if until is not None and until not in STAGES:
        raise ConfigError(
            where="--until",
            expected=f"one of {', '.join(STAGES)}",
            got=until,
            fix="Correct the stage's name.",
        )
    figure = Figure4(recipe, out, seed, reporter)
    steps = {
        "data": figure.pretraining_data,
        "tokenizer": figure.tokenizer,
        "pretraining": figure.pretraining,
        "sft": figure.supervised_finetuning,
        "rlhf-v1": lambda: figure.rlhf_round(1),
        "rlhf-v2": lambda: figure.rlhf_round(2),
        "rlhf-v3": lambda: figure.rlhf_round(3),
        "ghost-attention": figure.ghost_attention,
        "ppo": figure.ppo,
        "evaluation": figure.evaluation,
        "report": figure.report,
    }
    with run_lock(out):
        for name, step in steps.items():
            step()
            if name == until:
                return


@dataclass(frozen=True)
class Figure4:
    """The boxes of the figure over one run folder."""

    recipe: Figure4Recipe
    out: Path
    seed: int
    reporter: Reporter

    def pretraining_data(self) -> None:
        """Raw text, and everything else people bring: demonstrations, preferences, prompts."""
        if self.recipe.sandbox:
            write_sandbox(
                self.recipe.sandbox,
                out=self.out / "sandbox",
                seed=self.seed,
                machine=self.recipe.machine,
                reporter=self.reporter,
            )
        documents = self.out / "sandbox" / "documents.jsonl.zst" if self.recipe.sandbox else None
        build_corpus(
            self.recipe.data,
            documents=documents,
            out=self.out / "data",
            seed=self.seed,
            machine=self.recipe.machine,
            reporter=self.reporter,
        )
        if self.recipe.real:
            self._import(self.recipe.real)

    def _import(self, real: RealInputs) -> None:
        out = self.out
        common: Any = {"seed": self.seed, "machine": self.recipe.machine, "reporter": self.reporter}
        import_dialogs(real.dialogs, out=out / "dialogs", **common)
        import_preferences(real.preferences, out=out / "preferences", **common)
        build_prompt_sets(
            real.prompts,
            dialogs=[out / "dialogs"],
            comparisons=[out / "preferences"],
            out=out / "prompts",
            **common,
        )

    def tokenizer(self) -> None:
        """SentencePiece BPE, then every page as tokens."""
        build_tokenizer(
            self.recipe.tokenizer,
            data=self.out / "data",
            dialogs=self._dialogs,
            out=self.out / "tokenizer",
            seed=self.seed,
            machine=self.recipe.machine,
            reporter=self.reporter,
        )
        tokenize(
            self.recipe.shards,
            data=self.out / "data",
            tokenizer=self.out / "tokenizer",
            out=self.out / "tokens",
            seed=self.seed,
            machine=self.recipe.machine,
            reporter=self.reporter,
        )

    def pretraining(self) -> None:
        """Self-supervised learning."""
        pretrain(
            self.recipe.pretraining,
            data=self.out / "tokens",
            tokenizer=self.out / "tokenizer",
            out=self.out / "pretrained",
            seed=self.seed,
            machine=self.recipe.machine,
            reporter=self.reporter,
        )

    def supervised_finetuning(self) -> None:
        """The first chat model, and its variant for the first round of comparisons."""
        jobs = {"sft": self._finetuning(self.recipe.sft, "pretrained", [self._dialogs], "sft")}
        if self.recipe.sft_variant:
            jobs["sft-variant"] = self._finetuning(
                self.recipe.sft_variant, "pretrained", [self._dialogs], "sft-variant"
            )
        run_side_by_side(jobs, reporter=self.reporter)

    def rlhf_round(self, k: int) -> None:
        """Human feedback, both reward models, rejection sampling, and fine-tuning: the loop of Figure 4."""
        self._human_feedback(k)
        self._reward_models(k)
        sampling: Job = partial(
            sample_candidates,
            self.recipe.rejection_sampling,
            model=self.out / ROUND_MODELS[k - 1],
            prompts=self._prompts(f"round-{k}"),
            reward_models=self._rewards(k),
            out=self.out / "samples" / f"v{k}",
            seed=derive_seed(self.seed, "samples", k),
            labels={"version": ROUND_MODELS[k]},
            earlier=[self.out / "samples" / f"v{j}" for j in range(1, k)],
        )
        if k == 1:
            jobs = {"samples": sampling, "distillation": self._safety_context_distillation()}
            run_side_by_side(jobs, reporter=self.reporter)
        else:
            sampling(reporter=self.reporter)
        start = "pretrained" if self.recipe.rlhf_starts_from == "base" else "sft"
        data = [self.out / "samples" / f"v{k}", self.out / "safety" / "distillation"]
        self._finetuning(self.recipe.rlhf_finetuning, start, data, ROUND_MODELS[k])(reporter=self.reporter)

    def _human_feedback(self, k: int) -> None:
        if self.recipe.real:
            return
        predecessor = ROUND_MODELS[k - 2] if k > 1 else "sft-variant"
        models = [self.out / ROUND_MODELS[k - 1]]
        if k > 1 or self.recipe.sft_variant:
            models.append(self.out / predecessor)
        collect_preferences(
            self.recipe.preferences.model_copy(update={"batch": str(k)}),
            models=models,
            prompts=self._prompts(f"round-{k}"),
            annotators=annotator_pool(self.recipe.n_annotators),
            out=self.out / "preferences" / f"batch-{k}",
            seed=derive_seed(self.seed, "preferences", k),
            reporter=self.reporter,
            labels={"batch": str(k)},
        )

    def _reward_models(self, k: int) -> None:
        """Both are trained on every comparison so far; real preferences do not grow, so theirs are trained once."""
        if self.recipe.real and k > 1:
            return
        comparisons = [self.out / "preferences"]
        if self.recipe.sandbox:
            batches = [self.out / "preferences" / f"batch-{j}" for j in range(1, k + 1)]
            comparisons = [*batches, self.out / "sandbox" / "open_comparisons.jsonl"]
        roles: tuple[Domain, Domain] = ("helpfulness", "safety")
        jobs = {}
        for role in roles:
            config = self.recipe.helpfulness_reward if role == "helpfulness" else self.recipe.safety_reward
            if k > 1 and self.recipe.later_reward_epochs:
                config = config.model_copy(update={"n_epochs": self.recipe.later_reward_epochs})
            goes_on = k > 1 and self.recipe.later_rewards == "previous"
            jobs[self._rewards(k)[role].name] = partial(
                train_reward_model,
                config,
                chat_model=self.out / ROUND_MODELS[k - 1],
                comparisons=comparisons,
                role=role,
                out=self._rewards(k)[role],
                seed=derive_seed(self.seed, "reward", role, k),
                machine=self.recipe.machine,
                labels={"role": role, "round": str(k)},
                previous=self._rewards(k - 1)[role] if goes_on else None,
            )
        run_side_by_side(jobs, reporter=self.reporter)

    def _safety_context_distillation(self) -> Job:
        return partial(
            distill,
            self.recipe.distillation,
            model=self.out / "sft",
            prompts=self._prompts("red_team"),
            reward_models=self._rewards(1),
            out=self.out / "safety" / "distillation",
            seed=derive_seed(self.seed, "distillation"),
        )

    def ghost_attention(self) -> None:
        """V3 learns to keep instructions over turns; the model before it stays as the ablation of Table 30.

        Its dialogs are sampled turn after turn, which leaves cores idle: the versions so far are measured meanwhile.
        """
        sampling: Job = partial(
            build_gatt_data,
            self.recipe.gatt,
            model=self.out / "rlhf-v3",
            dialogs=self._prompts("constraints"),
            out=self.out / "gatt",
            seed=derive_seed(self.seed, "gatt"),
            reward_model=self._rewards(3)["helpfulness"],
        )
        so_far = [self._evaluation(version) for version in ("sft", "pretrained", *ROUND_MODELS[1:])]
        jobs: dict[str, Job] = {"dialogs": sampling, "evaluation": partial(_in_turn, so_far)}
        run_side_by_side(jobs, reporter=self.reporter)
        data = [self.out / "gatt", self.out / "samples" / "v3", self.out / "safety" / "distillation"]
        tuning = self._finetuning(self.recipe.gatt_finetuning, "rlhf-v3", data, "rlhf-v3-gatt")
        tuning(reporter=self.reporter)

    def ppo(self) -> None:
        """PPO on top of the rejection-sampling checkpoint, early stopped on held-out prompts."""
        train_ppo(
            self.recipe.ppo,
            policy=self.out / "rlhf-v3-gatt",
            reward_models=self._rewards(3),
            prompts=self._prompts("round-3"),
            held_out_prompts=self._prompts("early_stopping"),
            out=self.out / "rlhf-v3-ppo",
            seed=derive_seed(self.seed, "ppo"),
            reporter=self.reporter,
            labels={"version": "rlhf-v3-ppo"},
        )

    def evaluation(self) -> None:
        """Every version on the same held-out prompts with the last reward models; the oracle where there is one.

        Those before Ghost Attention have been measured beside it.
        """
        jobs: dict[str, Job] = {v: self._evaluation(v) for v in ("rlhf-v3-gatt", "rlhf-v3-ppo")}
        jobs["score shift"] = partial(
            score_shift,
            self.recipe.score_shift,
            before=self.out / "sft",
            after=self.out / "rlhf-v3-ppo",
            prompts=self._prompts("held_out"),
            reward_models=self._rewards(3),
            out=self.out / "safety" / "score_shift",
            seed=derive_seed(self.seed, "score-shift"),
        )
        run_side_by_side(jobs, reporter=self.reporter)

    def _evaluation(self, version: str) -> Job:
        return partial(
            evaluate_version,
            self.recipe.evaluation,
            model=self.out / version,
            prompts=self._prompts("held_out"),
            grader=Oracle() if self.recipe.sandbox else None,
            reward_models=self._rewards(3),
            out=self.out / "evaluation" / version,
            seed=derive_seed(self.seed, "evaluation"),
            labels={"version": version},
            reference=None if version == "sft" else self.out / "evaluation" / "sft",
        )

    def report(self) -> None:
        """The paper's tables and figures, from this run."""
        build_report(self.out, self.out / "report", title=self.recipe.title, reporter=self.reporter)

    def _finetuning(self, config: FinetuningConfig, base: str, data: Sequence[Path], version: str) -> Job:
        return partial(
            finetune,
            config,
            base_model=self.out / base,
            dialogs=list(data),
            out=self.out / version,
            seed=derive_seed(self.seed, version),
            machine=self.recipe.machine,
            labels={"version": version},
        )

    @property
    def _dialogs(self) -> Path:
        return self.out / ("sandbox" if self.recipe.sandbox else "dialogs") / "dialogs.jsonl"

    def _prompts(self, name: str) -> Path:
        return self.out / ("sandbox/prompts" if self.recipe.sandbox else "prompts/prompts") / f"{name}.jsonl"

    def _rewards(self, k: int) -> dict[str, Path]:
        round_ = 1 if self.recipe.real else k
        return {
            "helpfulness": self.out / "reward" / f"helpfulness-{round_}",
            "safety": self.out / "reward" / f"safety-{round_}",
        }


def _in_turn(jobs: Sequence[Job], *, reporter: Reporter) -> None:
    """One job after another, as one job."""
    for job in jobs:
        job(reporter=reporter)
