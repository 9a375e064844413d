"""Recipes: every shipped one loads, exactly one origin, and what can go wrong is named."""

from pathlib import Path

import pytest

from puna.core.config import load_recipe, resolve
from puna.core.errors import ConfigError
from puna.recipe.settings import Figure4Recipe, builtin_recipe
from puna.recipe.versions import PAPER_SCHEDULE

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path for path in (ROOT / "recipes").glob("*.toml") if "[data" in path.read_text())
"""Of the whole figure; those of pretraining alone have no data section."""
SANDBOX = "[sandbox]\n"
REAL = """
[[real.dialogs.sources]]
name = "a"
reader = "alpaca"
path = "a.json"
[[real.preferences.sources]]
name = "b"
reader = "hh_rlhf"
path = "b.jsonl"
[real.prompts]
instructions = [{ text = "Always say yes.", short = "Say yes." }]
"""


def load(folder: Path, text: str, *overrides: str) -> Figure4Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return load_recipe(path, Figure4Recipe, overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path, Figure4Recipe)
    assert builtin_recipe(path.stem).read_bytes() == path.read_bytes()
    assert Figure4Recipe.model_validate(resolve(recipe)) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_sizes_fit_each_other(path: Path) -> None:
    """Rows are no longer than the model's context, and the tokenizer has the model's vocabulary."""
    recipe = load_recipe(path, Figure4Recipe)
    model = recipe.pretraining.model_config_for(recipe.tokenizer.vocab_size)
    for section in (recipe.sft, recipe.sft_variant, recipe.rlhf_finetuning, recipe.gatt_finetuning):
        assert section is None or section.seq_len <= model.max_seq_len
    assert recipe.pretraining.loop_for().n_steps > recipe.pretraining.loop.warmup_steps


def test_an_origin_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"either a \[sandbox\] or a \[real\] section"):
        load(tmp_path, "title = 'nothing'")


def test_two_origins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"either a \[sandbox\] or a \[real\] section"):
        load(tmp_path, SANDBOX + REAL)


@pytest.mark.parametrize("origin", [SANDBOX, REAL])
def test_either_origin_will_do(tmp_path: Path, origin: str) -> None:
    recipe = load(tmp_path, origin)
    assert (recipe.sandbox is None) == (origin == REAL)


def test_settings_are_those_of_the_paper_unless_a_recipe_says_otherwise(tmp_path: Path) -> None:
    recipe = load(tmp_path, SANDBOX)
    assert recipe.tokenizer.vocab_size == 32_000
    assert recipe.pretraining.total_tokens == 2_000_000_000_000
    assert recipe.sft.loop.optimizer.peak_lr == 2e-5
    assert recipe.sft.n_epochs == 2
    assert recipe.helpfulness_reward.loop.optimizer.peak_lr == 1e-5
    assert recipe.ppo.batch_size == 512
    assert recipe.ppo.clip == 0.2
    assert recipe.versions == PAPER_SCHEDULE


def test_a_section_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'pretraining'"):
        load(tmp_path, SANDBOX + "[pretrainin]\nseq_len = 8")


def test_an_override_beats_the_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, SANDBOX + "[sft]\nn_epochs = 3", "sft.n_epochs=4", "title=Mine")
    assert (recipe.sft.n_epochs, recipe.title) == (4, "Mine")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="sandbox_cpu"):
        builtin_recipe("sandbox_gpu")


def test_a_table_named_base_is_the_model_to_start_from_and_a_text_is_the_file_below(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text('[sandbox]\n[base]\nmodel = "mine"\n')
    (tmp_path / "above.toml").write_text('base = "below.toml"\ntitle = "x"\n')
    for name, title in (("below", "A Llama 2, raised"), ("above", "x")):
        recipe = load_recipe(tmp_path / f"{name}.toml", Figure4Recipe)
        assert recipe.base is not None
        assert (recipe.base.model, recipe.title) == ("mine", title)
