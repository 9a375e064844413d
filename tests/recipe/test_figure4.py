"""The plan of Figure 4: the order of its steps, what each is given, and what a box needs. Nothing is trained.

That every input was made by an earlier step is what the figure's arrows say.
"""

from pathlib import Path
from typing import Any

import pytest

from puna.core.artifacts import run_lock
from puna.core.config import load_recipe
from puna.core.errors import ConfigError, RecipeError, RunLockedError
from puna.core.progress import quiet
from puna.core.seeding import derive_seed
from puna.recipe.executor import boxes
from puna.recipe.figure4 import plan_figure4, raise_llama
from puna.recipe.settings import Figure4Recipe
from puna.recipe.steps import Step, groups, needed_for
from puna.recipe.versions import PAPER_SCHEDULE

ROOT = Path(__file__).parents[2]
RECIPES = {
    "sandbox": ROOT / "recipes" / "sandbox_cpu.toml",
    "real": ROOT / "tests" / "end_to_end" / "real.toml",
}
RUN = Path("/run")


def recipe_of(name: str, *overrides: str) -> Figure4Recipe:
    return load_recipe(RECIPES[name], Figure4Recipe, overrides)


def plan_of(name: str = "sandbox", *overrides: str) -> list[Step]:
    return plan_figure4(recipe_of(name, *overrides), out=RUN, seed=3)


def out(step: Step) -> str:
    return step.out.relative_to(RUN).as_posix()


def made(plan: list[Step], name: str) -> Step:
    return next(step for step in plan if out(step) == name)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def of(plan: list[Step], stage: str) -> list[Step]:
    return [step for step in plan if step.stage.name == stage]


@pytest.mark.parametrize("name", RECIPES)
def test_every_input_was_made_before_it_is_read(name: str) -> None:
    plan = plan_of(name)
    for index, step in enumerate(plan):
        earlier = [other.out for other in plan[:index]]
        for path in step.reads():
            is_made = any(path == folder or folder in path.parents for folder in earlier)
            assert is_made, (out(step), path)


@pytest.mark.parametrize("name", RECIPES)
def test_every_artifact_is_made_once_and_is_used(name: str) -> None:
    plan = plan_of(name)
    assert len({step.out for step in plan}) == len(plan)
    read = {path for step in plan for path in step.reads()}
    for step in plan:
        is_read = any(step.out == path or step.out in path.parents for path in read)
        assert is_read or step.box == "evaluation", out(step)


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_gets_the_keywords_that_it_declares(name: str) -> None:
    """What a stage does not know, or needs and does not get, would only show hours into a run."""
    for step in plan_of(name):
        known = {parameter.name for parameter in step.stage.parameters}
        needed = {parameter.name for parameter in step.stage.parameters if parameter.is_required}
        assert needed <= set(step.inputs) <= known, out(step)
        assert isinstance(step.config, step.stage.config_class), out(step)


def test_the_sandbox_run_reads_like_the_figure() -> None:
    outs = [out(step) for step in plan_of()]
    assert [name for name in outs if not name.startswith("evaluation/")] == [
        *("sandbox", "data", "tokenizer", "tokens", "pretrained", "sft", "sft-variant"),
        *("preferences/batch-1", "reward/helpfulness-1", "reward/safety-1", "samples/v1"),
        *("safety/distillation", "rlhf-v1"),
        *("preferences/batch-2", "reward/helpfulness-2", "reward/safety-2", "samples/v2", "rlhf-v2"),
        *("preferences/batch-3", "reward/helpfulness-3", "reward/safety-3", "samples/v3", "rlhf-v3"),
        *("gatt", "rlhf-v3-gatt", "rlhf-v3-ppo", "safety/score_shift"),
    ]
    versions = ("sft", "pretrained", "rlhf-v1", "rlhf-v2", "rlhf-v3", "rlhf-v3-ppo", "rlhf-v3-gatt")
    assert [name for name in outs if name.startswith("evaluation/")] == [f"evaluation/{v}" for v in versions]


def test_what_runs_side_by_side() -> None:
    beside = [[out(step) for step in group] for group in groups(plan_of()) if len(group) > 1]
    assert beside == [
        ["sft", "sft-variant"],
        ["reward/helpfulness-1", "reward/safety-1"],
        ["samples/v1", "safety/distillation"],
        ["reward/helpfulness-2", "reward/safety-2"],
        ["reward/helpfulness-3", "reward/safety-3"],
        ["gatt", *(f"evaluation/{v}" for v in ("sft", "pretrained", "rlhf-v1", "rlhf-v2", "rlhf-v3"))],
        ["evaluation/rlhf-v3-ppo", "evaluation/rlhf-v3-gatt", "safety/score_shift"],
    ]


def test_preferences_are_collected_with_the_latest_model() -> None:
    """Each batch compares the model of the round with the one before it (§3.2.1), on prompts of its own."""
    batches = of(plan_of(), "collect_preferences")
    assert {out(step): names(step.inputs["models"]) for step in batches} == {
        "preferences/batch-1": ["sft", "sft-variant"],
        "preferences/batch-2": ["rlhf-v1", "sft"],
        "preferences/batch-3": ["rlhf-v2", "rlhf-v1"],
    }
    assert [step.inputs["prompts"].stem for step in batches] == ["round-1", "round-2", "round-3"]


def test_reward_models_see_every_batch_so_far() -> None:
    """And the open preference data, which stands for the public sets of §3.2.1."""
    plan = plan_of()
    for k in (1, 2, 3):
        for role in ("helpfulness", "safety"):
            step = made(plan, f"reward/{role}-{k}")
            batches = [f"batch-{j}" for j in range(1, k + 1)]
            assert names(step.inputs["comparisons"]) == [*batches, "open_comparisons.jsonl"]
            assert step.inputs["chat_model"].name == ("sft", "rlhf-v1", "rlhf-v2")[k - 1]
            assert step.labels == {"role": role, "round": str(k)}


def test_real_preferences_train_reward_models_once() -> None:
    plan = plan_of("real")
    assert [out(step) for step in of(plan, "train_reward_model")] == [
        "reward/helpfulness-1",
        "reward/safety-1",
    ]
    assert not of(plan, "write_sandbox")
    assert not of(plan, "collect_preferences")
    assert all(step.inputs["grader"] is None for step in of(plan, "evaluate_version"))


def test_ppo_starts_from_rejection_sampling_and_stops_on_other_prompts() -> None:
    plan = plan_of()
    ppo = made(plan, "rlhf-v3-ppo").inputs
    assert ppo["policy"].name == "rlhf-v3-gatt"
    assert made(plan, "rlhf-v3-gatt").inputs["base_model"].name == "rlhf-v3"
    assert set(names(ppo["reward_models"].values())) == {"helpfulness-3", "safety-3"}
    assert ppo["held_out_prompts"].stem == "early_stopping"


def test_held_out_prompts_are_only_for_measuring() -> None:
    readers = {step.stage.name for step in plan_of() for path in step.reads() if path.stem == "held_out"}
    assert readers == {"evaluate_version", "score_shift"}


def test_stages_get_seeds_of_their_own() -> None:
    """Two stages of one kind never draw the same noise; evaluations do, so that versions can be compared."""
    plan = plan_of()
    for stage in ("collect_preferences", "sample_candidates", "train_reward_model", "finetune"):
        seeds = [step.seed for step in of(plan, stage)]
        assert len(set(seeds)) == len(seeds)
    assert len({step.seed for step in of(plan, "evaluate_version")}) == 1


def test_a_second_ppo_version_draws_its_own_noise() -> None:
    values = recipe_of("sandbox").model_dump()
    values["versions"] = [
        {"name": "a"},
        {"name": "p", "method": "ppo", "starts_from": "a"},
        {"name": "q", "method": "ppo", "starts_from": "p"},
    ]
    plan = plan_figure4(Figure4Recipe.model_validate(values), out=RUN, seed=0)
    assert made(plan, "p").seed == derive_seed(0, "ppo")
    assert made(plan, "q").seed != made(plan, "p").seed


def test_without_a_variant_the_first_round_samples_one_model() -> None:
    recipe = recipe_of("sandbox").model_copy(update={"sft_variant": None})
    plan = plan_figure4(recipe, out=RUN, seed=0)
    assert names(made(plan, "preferences/batch-1").inputs["models"]) == ["sft"]
    assert "sft-variant" not in [out(step) for step in plan]


def paper_plan() -> list[Step]:
    """Five rounds by a change of the recipe alone."""
    values = recipe_of("sandbox").model_dump()
    values["versions"] = [version.model_dump() for version in PAPER_SCHEDULE]
    values["sandbox"]["prompts_per_round"] = [10, 20, 30, 40, 50]
    return plan_figure4(Figure4Recipe.model_validate(values), out=RUN, seed=0)


def test_five_versions_are_a_change_of_the_recipe() -> None:
    plan = paper_plan()
    pools = {out(step): names(step.inputs["earlier"]) for step in of(plan, "sample_candidates")}
    assert pools == {
        "samples/v1": [],
        "samples/v2": [],
        "samples/v3": [],
        "samples/v4": ["v1", "v2", "v3"],
        "samples/v5": ["v1", "v2", "v3", "v4"],
    }
    assert [out(step) for step in of(plan, "build_gatt_data")] == ["gatt"]
    assert made(plan, "gatt").inputs["model"].name == "rlhf-v3"
    for k in range(1, 6):
        tuning = made(plan, f"rlhf-v{k}").inputs
        assert tuning["base_model"].name == "pretrained"
        assert names(tuning["dialogs"]) == [f"v{k}", "distillation", *(["gatt"] if k > 3 else [])]
    assert made(plan, "rlhf-v5-ppo").inputs["policy"].name == "rlhf-v5"
    evaluated = [out(step) for step in of(plan, "evaluate_version")]
    assert sorted(evaluated) == sorted(
        f"evaluation/{v}" for v in ("sft", "pretrained", *(version.name for version in PAPER_SCHEDULE))
    )


@pytest.mark.parametrize("name", RECIPES)
def test_an_existing_model_takes_the_place_of_pretraining(name: str, tmp_path: Path) -> None:
    """No corpus, no tokenizer, no pretraining; whatever started from the pretrained model starts from it."""
    recipe = recipe_of(name, f'base.model="{tmp_path}"')
    plan = plan_figure4(recipe, out=RUN, seed=0)
    assert not {step.stage.name for step in plan} & {
        "build_corpus",
        "build_tokenizer",
        "tokenize",
        "pretrain",
    }
    assert made(plan, "sft").inputs["base_model"] == tmp_path
    assert made(plan, "evaluation/pretrained").inputs["model"] == tmp_path
    others = [step for step in plan if tmp_path in step.reads()]
    assert all(step.stage.name in ("finetune", "evaluate_version") for step in others)
    assert not any(path.name == "pretrained" for step in plan for path in step.reads())


def test_a_base_that_is_no_llama_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"architectures": ["BertModel"]}')
    for base, message in (("bert", "LlamaForCausalLM"), ("absent", "a model folder")):
        recipe = recipe_of("sandbox", f'base.model="{tmp_path / base}"')
        with pytest.raises(RecipeError, match=message):
            raise_llama(recipe, out=tmp_path / "run", seed=0, reporter=quiet())
    assert not (tmp_path / "run").exists()


def test_a_round_without_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompts_per_round has 2 rounds"):
        recipe_of("sandbox", "sandbox.prompts_per_round=[1, 2]")


def test_until_makes_what_the_box_needs_and_no_more() -> None:
    plan = plan_of()
    last: dict[str, Any] = {box: out(needed_for(plan, box)[-1]) for box in boxes(plan)}
    assert last == {
        "data": "data",
        "tokenizer": "tokens",
        "pretraining": "pretrained",
        "sft": "sft-variant",
        "rlhf-v1": "rlhf-v1",
        "rlhf-v2": "rlhf-v2",
        "rlhf-v3": "rlhf-v3",
        "rlhf-v3-gatt": "rlhf-v3-gatt",
        "rlhf-v3-ppo": "rlhf-v3-ppo",
        "evaluation": "safety/score_shift",
    }
    real = [out(step) for step in needed_for(plan_of("real"), "pretraining")]
    assert real == ["data", "dialogs", "tokenizer", "tokens", "pretrained"]


def test_an_unknown_box_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of data, tokenizer, pretraining"):
        raise_llama(recipe_of("sandbox"), out=tmp_path / "run", seed=0, reporter=quiet(), until="sftt")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_has_one_writer(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"), pytest.raises(RunLockedError):
        raise_llama(recipe_of("sandbox"), out=tmp_path / "run", seed=0, reporter=quiet())
    assert not (tmp_path / "run" / "sandbox").exists()
