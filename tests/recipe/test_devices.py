"""Every stage of Figure 4 puts its models on the machine's device and computes there: the tiny recipe, recorded."""

from pathlib import Path

import pytest
import torch

from placed_models import NOWHERE, record_placements
from puna.core.artifacts import StageContext
from puna.core.config import Settings, load_recipe
from puna.core.machine import Machine
from puna.core.progress import quiet
from puna.core.stage import Metrics, stage
from puna.model import load_model, load_score_model
from puna.recipe.executor import execute
from puna.recipe.figure4 import plan_figure4
from puna.recipe.settings import Figure4Recipe
from tiny_chat_models import save_world, tiny_transformer

TINY = Path(__file__).parents[1] / "end_to_end" / "tiny.toml"

SMALLER = (
    "pretraining.total_tokens=12288",
    "sft.loop.total_steps=4",
    "sft_variant.loop.total_steps=4",
    "helpfulness_reward.loop.total_steps=2",
    "helpfulness_reward.loop.warmup_steps=1",
    "safety_reward.loop.total_steps=2",
    "safety_reward.loop.warmup_steps=1",
    "rlhf_finetuning.loop.total_steps=2",
    "gatt_finetuning.loop.total_steps=2",
    "ppo.max_iterations=1",
    "preferences.n_pairs_per_prompt=1",
)
"""Laid over the tiny recipe: a few updates of everything."""

MODEL_STAGES = {
    "pretrain",
    "finetune",
    "collect_preferences",
    "train_reward_model",
    "sample_candidates",
    "distill",
    "build_gatt_data",
    "train_ppo",
    "evaluate_version",
    "score_shift",
}

NO_MODEL = {"write_sandbox", "build_corpus", "build_tokenizer", "tokenize"}


def test_every_stage_of_the_recipe_obeys_the_machines_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one step after another, in this process
    noted = record_placements(monkeypatch)
    recipe = load_recipe(TINY, Figure4Recipe, SMALLER)
    plan = plan_figure4(recipe, out=tmp_path, seed=0)
    execute(plan, plan, run=tmp_path, machine=Machine(device="cpu:0", threads=1), reporter=quiet())
    assert noted.elsewhere("cpu:0") == {}
    assert set(noted.loaded) == set(noted.computed) == MODEL_STAGES
    assert {step.stage.name for step in plan} == MODEL_STAGES | NO_MODEL


class Nothing(Settings):
    """No settings."""


@stage("numbers")
def read_a_model(config: Nothing, context: StageContext, *, model: Path, role: str) -> Metrics:
    """Loads a model and a reward model, and reads a token with each.

    Args:
        model: A folder that holds both.
        role: How the device is chosen.
    """
    device = context.device if role == "obedient" else torch.device("cpu")
    tokens = torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        if role in ("fresh", "obedient"):
            chat = tiny_transformer(300, seed=0)
            chat = chat.to(device) if role == "obedient" else chat
            chat(tokens)
        if role in ("chat", "obedient"):
            load_model(model / "model", device=device)(tokens)
        if role in ("reward", "obedient"):
            load_score_model(model / "helpfulness", device=device)(tokens)
        if role == "unused":
            load_model(model / "model", device=device)
        if role == "moved":
            load_model(model / "model", device=context.device).to(device)(tokens)
    return {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_world(root)
    return root


@pytest.mark.parametrize(
    ("role", "places"),
    [
        ("obedient", set()),
        ("fresh", {NOWHERE}),
        ("chat", {"cpu"}),
        ("reward", {"cpu"}),
        ("unused", {"cpu"}),
        ("moved", {"cpu"}),
    ],
)
def test_the_recorder_tells_a_stage_that_chooses_for_itself(
    role: str, places: set[str], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = record_placements(monkeypatch)
    read_a_model(
        Nothing(), model=world, role=role, out=tmp_path / "out", seed=0, machine=Machine(device="cpu:0")
    )
    assert noted.elsewhere("cpu:0").get("read_a_model", set()) == places
    assert noted.stages == {"read_a_model"}
