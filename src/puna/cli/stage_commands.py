"""The stages that have a command of their own, by group: names and examples; everything else is in the declarations."""

import typer

from puna.cli.stages import StageCommand, add_stage
from puna.evaluation.harness import evaluate_version
from puna.ghost_attention.stage import build_gatt_data
from puna.human_feedback.importers import import_preferences
from puna.human_feedback.pairs import collect_preferences
from puna.pretraining_data.shards import tokenize
from puna.pretraining_data.stage import build_corpus
from puna.recipe.prompt_sets import build_prompt_sets
from puna.reward_modeling.stage import train_reward_model
from puna.rlhf.ppo import train_ppo
from puna.rlhf.rejection_sampling import sample_candidates
from puna.safety.context_distillation import distill
from puna.safety.score_shift import score_shift
from puna.sandbox import annotator_pool
from puna.supervised_finetuning.importers import import_dialogs
from puna.supervised_finetuning.stage import finetune

__all__ = ["register"]

REWARDS = "--helpfulness rm-h --safety rm-s"

TOP = (
    StageCommand(
        name="sft",
        stage=finetune,
        example="puna sft --model base --data dialogs --out sft --set loop.batch_size=16",
        options={"base_model": "model", "dialogs": "data"},
    ),
    StageCommand(
        name="evaluate",
        stage=evaluate_version,
        example=f"puna evaluate --model sft --prompts held_out.jsonl {REWARDS} --out evaluation/sft",
        fixed={"grader": lambda: None},
        roles={"helpfulness": False, "safety": False},
    ),
)
GROUPS: dict[str, tuple[str, tuple[StageCommand, ...]]] = {
    "data": (
        "Pretraining data, dialogs and prompts.",
        (
            StageCommand(
                name="build",
                stage=build_corpus,
                example="puna data build --documents pages.jsonl.zst --out data",
            ),
            StageCommand(
                name="tokenize",
                stage=tokenize,
                example="puna data tokenize --data data --tokenizer tokenizer --out tokens",
            ),
            StageCommand(
                name="dialogs",
                stage=import_dialogs,
                example="puna data dialogs --config sources.toml --out dialogs",
            ),
            StageCommand(
                name="prompts",
                stage=build_prompt_sets,
                example="puna data prompts --config prompts.toml --dialogs dialogs --comparisons pairs --out prompts",
            ),
        ),
    ),
    "reward": (
        "Train a reward model, or score with one.",
        (
            StageCommand(
                name="train",
                stage=train_reward_model,
                example="puna reward train --model sft --data pairs --role helpfulness --out rm-h",
                options={"chat_model": "model", "comparisons": "data"},
            ),
        ),
    ),
    "rlhf": (
        "Rejection sampling and PPO against two reward models.",
        (
            StageCommand(
                name="sample",
                stage=sample_candidates,
                example=f"puna rlhf sample --model sft --prompts prompts.jsonl {REWARDS} --out samples",
            ),
            StageCommand(
                name="ppo",
                stage=train_ppo,
                example="puna rlhf ppo --model v1 --prompts prompts.jsonl --held-out held_out.jsonl "
                f"{REWARDS} --out ppo",
                options={"policy": "model", "held_out_prompts": "held-out"},
            ),
        ),
    ),
    "gatt": (
        "Ghost Attention.",
        (
            StageCommand(
                name="build",
                stage=build_gatt_data,
                example="puna gatt build --model v3 --dialogs constraints.jsonl --out gatt",
                options={"reward_model": "helpfulness"},
            ),
        ),
    ),
    "safety": (
        "Safety tuning and its measurements.",
        (
            StageCommand(
                name="distill",
                stage=distill,
                example="puna safety distill --model sft --prompts adversarial.jsonl --safety rm-s --out distilled",
                roles={"safety": True},
            ),
            StageCommand(
                name="shift",
                stage=score_shift,
                example=f"puna safety shift --before sft --after ppo --prompts held_out.jsonl {REWARDS} --out shift",
            ),
        ),
    ),
    "prefer": (
        "Preference data.",
        (
            StageCommand(
                name="import",
                stage=import_preferences,
                example="puna prefer import --config sources.toml --out pairs",
            ),
            StageCommand(
                name="simulate",
                stage=collect_preferences,
                example="puna prefer simulate --models v1 --models sft --prompts prompts.jsonl --out pairs",
                fixed={"annotators": annotator_pool},
            ),
        ),
    ),
}


def register(app: typer.Typer, existing: dict[str, typer.Typer]) -> None:
    """Add every stage's command.

    Args:
        existing: Groups that have other commands too, by name.
    """
    for command in TOP:
        add_stage(app, command)
    for name, (help_, commands) in GROUPS.items():
        group = existing.get(name)
        if group is None:
            group = typer.Typer(help=help_, no_args_is_help=True)
            group.callback()(_keep_subcommands)
            app.add_typer(group, name=name)
        for command in commands:
            add_stage(group, command)


def _keep_subcommands() -> None:
    """A group of one command stays a group."""
