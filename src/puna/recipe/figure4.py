"""Figure 4 of the paper as a plan: pretraining, supervised fine-tuning, human feedback, and RLHF version by version.

`plan_figure4` lists the steps left to right. It runs nothing: what is skipped, resumed and run side by side follows
from the steps' inputs (steps.py, executor.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.core.artifacts import run_lock
from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.core.inputs import require, resolve_path
from puna.core.progress import Reporter
from puna.core.records import REWARD_ROLES, RewardRole
from puna.core.seeding import derive_seed
from puna.core.stage import Stage
from puna.evaluation.harness import evaluate_version
from puna.ghost_attention.stage import build_gatt_data
from puna.human_feedback.importers import import_preferences
from puna.human_feedback.pairs import collect_preferences
from puna.model.hf_config import read_config
from puna.pretraining.stage import pretrain
from puna.pretraining_data.shards import tokenize
from puna.pretraining_data.stage import build_corpus
from puna.recipe.executor import boxes, execute
from puna.recipe.prompt_sets import build_prompt_sets
from puna.recipe.settings import Figure4Recipe
from puna.recipe.steps import Step, needed_for
from puna.recipe.versions import Version, round_of
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

__all__ = ["plan_figure4", "raise_llama"]

REPORT = "report"
"""The last box: drawn from whatever the run has."""


def raise_llama(
    recipe: Figure4Recipe, *, out: Path, seed: int, reporter: Reporter, until: str | None = None
) -> None:
    """Run the recipe into `out`; finished steps are skipped, an interrupted one resumes.

    Args:
        until: The box to stop after; only what it needs is made.
    Raises:
        ConfigError: there is no such box.
        CheckpointError: the base model is no Llama model.
        RunLockedError: another process runs into the same folder.
    """
    if recipe.base is not None:
        read_config(
            require(resolve_path(recipe.base.model), "a model folder"), architecture="LlamaForCausalLM"
        )
    plan = plan_figure4(recipe, out=out, seed=seed)
    known = [*boxes(plan), REPORT]
    if until is not None and until not in known:
        raise ConfigError(
            where="--until",
            expected=f"one of {', '.join(known)}",
            got=until,
            fix="Correct the stage's name.",
        )
    with run_lock(out):
        is_whole = until in (None, REPORT)
        wanted = plan if until is None or is_whole else needed_for(plan, until)
        execute(plan, wanted, run=out, machine=recipe.machine, reporter=reporter)
        if is_whole:
            build_report(out, out / REPORT, title=recipe.title, reporter=reporter)


def plan_figure4(recipe: Figure4Recipe, *, out: Path, seed: int) -> list[Step]:
    """Every step of the recipe, in the order of the figure."""
    figure = _Figure4(recipe, out, seed)
    return [
        *figure.pretraining_data(),
        *figure.tokenizer(),
        *figure.pretraining(),
        *figure.supervised_finetuning(),
        *(step for version in recipe.versions for step in figure.version(version)),
        *figure.evaluation(),
    ]


@dataclass(frozen=True)
class _Figure4:
    """The boxes of the figure over one run folder."""

    recipe: Figure4Recipe
    run: Path
    seed: int

    def pretraining_data(self) -> Iterator[Step]:
        """Raw text, and everything else people bring: demonstrations, preferences, prompts."""
        recipe, documents = self.recipe, None
        if recipe.sandbox:
            yield self._step("data", "sandbox", write_sandbox, recipe.sandbox)
            documents = self.run / "sandbox" / "documents.jsonl.zst"
        if recipe.base is None:
            yield self._step("data", "data", build_corpus, recipe.data, documents=documents)
        if recipe.real:
            yield self._step("data", "dialogs", import_dialogs, recipe.real.dialogs)
            yield self._step("data", "preferences", import_preferences, recipe.real.preferences)
            yield self._step(
                "data",
                "prompts",
                build_prompt_sets,
                recipe.real.prompts,
                dialogs=[self.run / "dialogs"],
                comparisons=[self.run / "preferences"],
                n_rounds=recipe.n_rounds,
            )

    def tokenizer(self) -> Iterator[Step]:
        """SentencePiece BPE (§2.2.1), then every page as tokens; an existing model brings its own tokenizer."""
        if self.recipe.base is not None:
            return
        data = self.run / "data"
        yield self._step(
            "tokenizer", "tokenizer", build_tokenizer, self.recipe.tokenizer, data=data, dialogs=self._dialogs
        )
        yield self._step(
            "tokenizer", "tokens", tokenize, self.recipe.shards, data=data, tokenizer=self.run / "tokenizer"
        )

    def pretraining(self) -> Iterator[Step]:
        """Self-supervised learning (§2.2), unless a model exists already."""
        if self.recipe.base is not None:
            return
        yield self._step(
            "pretraining",
            "pretrained",
            pretrain,
            self.recipe.pretraining,
            data=self.run / "tokens",
            tokenizer=self.run / "tokenizer",
        )

    def supervised_finetuning(self) -> Iterator[Step]:
        """The first chat model (§3.1), and its variant for the first round of comparisons."""
        recipe = self.recipe
        yield self._finetuning("sft", "sft", recipe.sft, "pretrained", [self._dialogs])
        if recipe.sft_variant:
            yield self._finetuning("sft", "sft-variant", recipe.sft_variant, "pretrained", [self._dialogs])

    def version(self, version: Version) -> Iterator[Step]:
        """One version of the chat model (§3.2.3), by its method."""
        if version.method == "ppo":
            return self._ppo(version)
        if version.method == "ghost_attention":
            return self._ghost_attention(version)
        return self._rejection_sampling(version)

    def _rejection_sampling(self, version: Version) -> Iterator[Step]:
        """Human feedback, both reward models, samples, and fine-tuning on the best: the loop of Figure 4."""
        k = self._round(version)
        newest = self._models_before(version)[0]
        yield from self._human_feedback(version, k)
        yield from self._reward_models(version, k, newest)
        earlier = [self.run / "samples" / f"v{j}" for j in range(1, k)]
        yield self._step(
            version.name,
            f"samples/v{k}",
            sample_candidates,
            self.recipe.rejection_sampling,
            model=self.run / newest,
            prompts=self._prompts(f"round-{k}"),
            reward_models=self._rewards(k),
            earlier=earlier if version.pool == "all" else [],
            seed=derive_seed(self.seed, "samples", k),
            labels={"version": version.name},
        )
        if k == 1:
            yield self._safety_context_distillation(version)
        data = [self.run / "samples" / f"v{k}", self.run / "safety" / "distillation"]
        if version.has_ghost_attention:
            yield from self._gatt_dialogs(version)
            data.append(self.run / "gatt")
        yield self._finetuning(
            version.name, version.name, self.recipe.rlhf_finetuning, version.starts_from, data
        )

    def _human_feedback(self, version: Version, k: int) -> Iterator[Step]:
        """Fresh comparisons of the two newest variants (§3.2.1); people's own preferences do not grow."""
        if self.recipe.real:
            return
        variants = self._models_before(version)[:2]
        yield self._step(
            version.name,
            f"preferences/batch-{k}",
            collect_preferences,
            self.recipe.preferences,
            models=[self.run / name for name in variants],
            prompts=self._prompts(f"round-{k}"),
            annotators=annotator_pool(self.recipe.n_annotators),
            batch=str(k),
            seed=derive_seed(self.seed, "preferences", k),
            labels={"batch": str(k)},
        )

    def _reward_models(self, version: Version, k: int, newest: str) -> Iterator[Step]:
        """Both are trained on every comparison so far (§3.2.2); on real preferences, which do not grow, once."""
        recipe = self.recipe
        if recipe.real and k > 1:
            return
        comparisons = [self.run / "preferences"]
        if recipe.sandbox:
            batches = [self.run / "preferences" / f"batch-{j}" for j in range(1, k + 1)]
            comparisons = [*batches, self.run / "sandbox" / "open_comparisons.jsonl"]
        continues = k > 1 and recipe.later_rewards == "previous"
        for role in REWARD_ROLES:
            config = recipe.helpfulness_reward if role == "helpfulness" else recipe.safety_reward
            if k > 1 and recipe.later_reward_epochs:
                config = config.model_copy(update={"n_epochs": recipe.later_reward_epochs})
            yield self._step(
                version.name,
                f"reward/{role}-{k}",
                train_reward_model,
                config,
                chat_model=self.run / newest,
                comparisons=comparisons,
                role=role,
                previous=self._rewards(k - 1)[role] if continues else None,
                seed=derive_seed(self.seed, "reward", role, k),
                labels={"role": role, "round": str(k)},
            )

    def _safety_context_distillation(self, version: Version) -> Step:
        """Safer answers drawn out of the SFT model (§4.2.4); every version learns from them."""
        return self._step(
            version.name,
            "safety/distillation",
            distill,
            self.recipe.distillation,
            model=self.run / "sft",
            prompts=self._prompts("red_team"),
            reward_models=self._rewards(1),
            seed=derive_seed(self.seed, "distillation"),
        )

    def _ghost_attention(self, version: Version) -> Iterator[Step]:
        """A version tuned on Ghost Attention dialogs; the model it starts from stays as the ablation of Table 30.

        Its dialogs are sampled turn after turn, which leaves cores idle: the versions so far are measured meanwhile.
        """
        k = self._round(version)
        yield from self._gatt_dialogs(version)
        if self._measured_meanwhile == version.name:
            before = self.recipe.versions[: self.recipe.versions.index(version)]
            yield from self._evaluations(["sft", "pretrained", *(other.name for other in before)])
        data = [self.run / "gatt", self.run / "samples" / f"v{k}", self.run / "safety" / "distillation"]
        yield self._finetuning(
            version.name, version.name, self.recipe.gatt_finetuning, version.starts_from, data
        )

    def _gatt_dialogs(self, version: Version) -> Iterator[Step]:
        """Dialogs that keep an instruction (§3.3), from the newest model, for the first version that learns it."""
        learners = [v for v in self.recipe.versions if v.has_ghost_attention or v.method == "ghost_attention"]
        if version is not learners[0]:
            return
        yield self._step(
            version.name,
            "gatt",
            build_gatt_data,
            self.recipe.gatt,
            model=self.run / self._models_before(version)[0],
            dialogs=self._prompts("constraints"),
            reward_model=self._rewards(self._round(version))["helpfulness"],
            seed=derive_seed(self.seed, "gatt"),
        )

    def _ppo(self, version: Version) -> Iterator[Step]:
        """PPO on top of a checkpoint (§3.2.3), early stopped on held-out prompts.

        A later PPO version has a seed of its own: it would draw the same prompts with the same noise again.
        """
        k = self._round(version)
        is_first = version == next(v for v in self.recipe.versions if v.method == "ppo")
        yield self._step(
            version.name,
            version.name,
            train_ppo,
            self.recipe.ppo,
            policy=self.run / version.starts_from,
            reward_models=self._rewards(k),
            prompts=self._prompts(f"round-{k}"),
            held_out_prompts=self._prompts("early_stopping"),
            seed=derive_seed(self.seed, "ppo", *([] if is_first else [version.name])),
            labels={"version": version.name},
        )

    def evaluation(self) -> Iterator[Step]:
        """Every version on the same held-out prompts with the last reward models; the oracle where there is one.

        Newest first: its evaluation needs the last training, so that all that is left is measured side by side.
        """
        names = [version.name for version in self.recipe.versions]
        if self._measured_meanwhile is None:
            names = ["sft", "pretrained", *names]
        else:
            names = names[names.index(self._measured_meanwhile) :][::-1]
        yield from self._evaluations(names)
        yield self._step(
            "evaluation",
            "safety/score_shift",
            score_shift,
            self.recipe.score_shift,
            before=self.run / "sft",
            after=self.run / self.recipe.versions[-1].name,
            prompts=self._prompts("held_out"),
            reward_models=self._rewards(self.recipe.n_rounds),
            seed=derive_seed(self.seed, "score-shift"),
        )

    @property
    def _measured_meanwhile(self) -> str | None:
        """The Ghost Attention version beside whose dialogs the versions before it are measured, if the last reward
        models, which measure them, exist by then."""
        return next(
            (
                version.name
                for version in self.recipe.versions
                if version.method == "ghost_attention" and self._round(version) == self.recipe.n_rounds
            ),
            None,
        )

    def _evaluations(self, versions: Sequence[str]) -> Iterator[Step]:
        for version in versions:
            yield self._step(
                "evaluation",
                f"evaluation/{version}",
                evaluate_version,
                self.recipe.evaluation,
                model=self._model(version),
                prompts=self._prompts("held_out"),
                grader=Oracle() if self.recipe.sandbox else None,
                reward_models=self._rewards(self.recipe.n_rounds),
                reference=None if version == "sft" else self.run / "evaluation" / "sft",
                seed=derive_seed(self.seed, "evaluation"),
                labels={"version": version},
            )

    def _finetuning(
        self, box: str, version: str, config: FinetuningConfig, base: str, data: Sequence[Path]
    ) -> Step:
        return self._step(
            box,
            version,
            finetune,
            config,
            base_model=self._model(base),
            dialogs=list(data),
            seed=derive_seed(self.seed, version),
            labels={"version": version},
        )

    def _step(
        self,
        box: str,
        out: str,
        stage: Stage[Any],
        config: Settings,
        *,
        seed: int | None = None,
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> Step:
        return Step(
            box=box,
            out=self.run / out,
            stage=stage,
            config=config,
            inputs=inputs,
            seed=self.seed if seed is None else seed,
            labels=labels or {},
        )

    def _round(self, version: Version) -> int:
        return round_of(self.recipe.versions, version)

    def _models_before(self, version: Version) -> list[str]:
        """The chat models there are when a version's round begins, newest first."""
        made = [other.name for other in self.recipe.versions[: self.recipe.versions.index(version)]]
        variant = ["sft-variant"] if self.recipe.sft_variant and not made else []
        return [*reversed(made), "sft", *variant]

    def _model(self, name: str) -> Path:
        """The folder of a version; "pretrained" may be a model that existed before the run."""
        if name == "pretrained" and self.recipe.base is not None:
            return resolve_path(self.recipe.base.model).resolve()
        return self.run / name

    @property
    def _dialogs(self) -> Path:
        return self.run / ("sandbox" if self.recipe.sandbox else "dialogs") / "dialogs.jsonl"

    def _prompts(self, name: str) -> Path:
        return self.run / ("sandbox/prompts" if self.recipe.sandbox else "prompts/prompts") / f"{name}.jsonl"

    def _rewards(self, k: int) -> dict[RewardRole, Path]:
        """The reward models of a round; on real preferences there is one pair for all rounds."""
        round_ = 1 if self.recipe.real else k
        return {role: self.run / "reward" / f"{role}-{round_}" for role in REWARD_ROLES}
