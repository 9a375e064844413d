"""Recipes: base, overrides, and one clear message for each way to get them wrong."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

import puna
from puna.core.config import Settings, load_recipe, resolve
from puna.core.errors import ConfigError


class Optimizer(Settings):
    peak_lr: float = 3e-4
    """Per step."""
    betas: tuple[float, float] = (0.9, 0.95)


class Source(Settings):
    path: Path
    weight: float = 1.0


class Recipe(Settings):
    name: str = "x"
    seed: int = Field(default=0, ge=0)
    optimizer: Optimizer = Optimizer()
    final: Optimizer | None = None
    sources: tuple[Source, ...] = ()
    by_name: dict[str, Source] = Field(default_factory=dict)


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "recipe.toml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_defaults_base_recipe_and_overrides_stack_up(write) -> None:
    write("seed = 1\nname = 'base'\n[optimizer]\npeak_lr = 1e-3\nbetas = [0.1, 0.2]", "base.toml")
    path = write("base = 'base.toml'\nname = 'top'\n[optimizer]\npeak_lr = 2e-3")
    recipe = load_recipe(path, Recipe, ["optimizer.peak_lr=4e-3", "optimizer.peak_lr = 5e-3", "seed=7"])
    assert recipe == Recipe(name="top", seed=7, optimizer=Optimizer(peak_lr=5e-3, betas=(0.1, 0.2)))


@pytest.mark.parametrize(
    ("override", "name"),
    [("name=plain words", "plain words"), ('name="quoted"', "quoted"), ("name=a=b", "a=b"), ("name=", "")],
)
def test_bare_and_quoted_strings(write, override: str, name: str) -> None:
    assert load_recipe(write(""), Recipe, [override]).name == name


def test_override_cannot_smuggle_in_a_second_key(write) -> None:
    assert load_recipe(write(""), Recipe, ["name=1\nseed = 5"]).seed == 0


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    lr=NUMBERS, seed=st.integers(0, 2**63 - 1), betas=st.tuples(NUMBERS, NUMBERS), name=st.text(max_size=20)
)
def test_any_value_survives_an_override(tmp_path_factory, lr, seed, betas, name) -> None:
    """JSON's numbers and strings are TOML's too, but for DEL and lone surrogates."""
    name = name.encode(errors="ignore").decode().replace("\x7f", "")
    path = tmp_path_factory.getbasetemp() / "empty.toml"
    path.write_text("")
    overrides = [
        f"optimizer.peak_lr={lr!r}",
        f"optimizer.betas={list(betas)}",
        f"seed={seed}",
        f"name={json.dumps(name, ensure_ascii=False)}",
    ]
    optimizer = Optimizer(peak_lr=lr, betas=betas)
    assert load_recipe(path, Recipe, overrides) == Recipe(name=name, seed=seed, optimizer=optimizer)


@given(text=st.text(max_size=40))
def test_any_override_loads_or_is_refused(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "empty.toml"
    path.write_text("")
    for override in (text, f"name={text}", f"{text}=1", f"optimizer.{text}"):
        with suppress(ConfigError):
            assert isinstance(load_recipe(path, Recipe, [override]), Recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead = 1", r"recipe\.toml, key sead: expected a known key, got 'sead'. Did you mean 'seed'\?"),
        ("[optimizer]\npeek_lr = 1", r"key optimizer\.peek_lr.*'peak_lr'"),
        ("[final]\npeek_lr = 1", r"key final\.peek_lr.*'peak_lr'"),
        ("[[sources]]\npath='a'\nwieght = 1", r"key sources\.0\.wieght.*'weight'"),
        ("[by_name.web]\npath='a'\nwieght = 1", r"key by_name\.web\.wieght.*'weight'"),
        ("zzzz = 1", r"Known keys here: by_name, final, name, optimizer, seed, sources"),
        ("[[real.sources]]\nweight = 1", r"key real: expected a known key"),
        ("[[sources]]\nweight = 1", r"key sources\.0\.path: expected a value, got nothing"),
        ("seed = -1", r"key seed: expected greater than or equal to 0, got -1"),
        ("seed = 'a'", r"key seed: expected .*integer.*, got 'a'"),
        ("[optimizer]\npeak_lr = inf", r"key optimizer\.peak_lr: expected .*finite"),
        ("optimizer = 3", r"key optimizer: expected .*Optimizer"),
        ("seed = 1\nname", r"recipe\.toml: expected valid TOML"),
        ("seed = 1\nname = x\n", r"recipe\.toml: expected valid TOML.*line 2"),
        ("base = 'absent.toml'", r"absent\.toml: expected a recipe file, got No such file"),
        ("base = 'other.toml'", r"other\.toml: expected a recipe without a base"),
    ],
)
def test_mistakes_are_named(write, text: str, message: str) -> None:
    write("base = 'third.toml'", "other.toml")
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(text), Recipe)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected key.subkey=value"),
        ("=1", "expected key.subkey=value"),
        ("a..b=1", "expected key.subkey=value"),
        ("sead=1", r"--set, key sead: .*'seed'"),
        ("optimizer.peek_lr=1", r"--set, key optimizer\.peek_lr: .*'peak_lr'"),
        ("seed.x=1", "expected seed to be a table"),
        ("seed=abc", r"--set, key seed: .*got 'abc'"),
    ],
)
def test_wrong_overrides_are_named(write, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write("seed = 1"), Recipe, [override])


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a recipe file"):
        load_recipe(tmp_path / "absent.toml", Recipe)


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="valid TOML"):
        load_recipe(tmp_path / "r.toml", Recipe)


def test_resolved_settings_are_plain_json_and_come_back() -> None:
    recipe = Recipe(sources=(Source(path=Path("a/b")),), by_name={"web": Source(path=Path("c"))})
    resolved = resolve(recipe)
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["sources"] == [{"path": "a/b", "weight": 1.0}]
    assert Recipe.model_validate(resolved) == recipe


def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().seed = 1


class Slow(Settings):
    """Nested settings with defaults that are not their class's own."""

    optimizer: Optimizer = Optimizer(peak_lr=1e-6)


class Stage(Settings):
    loop: Slow = Slow(optimizer=Optimizer(peak_lr=1e-7))
    method: Optimizer | Source = Optimizer(peak_lr=1e-6)


def test_a_partial_block_changes_only_what_it_names(write) -> None:
    path = write("[optimizer]\nbetas = [0.1, 0.2]")
    assert load_recipe(path, Slow).optimizer == Optimizer(peak_lr=1e-6, betas=(0.1, 0.2))
    deep = load_recipe(write(""), Stage, ["loop.optimizer.betas=[0.1, 0.2]"])
    assert deep.loop.optimizer == Optimizer(peak_lr=1e-7, betas=(0.1, 0.2))
    assert Stage(loop={}) == Stage()


def test_another_class_of_a_union_takes_nothing_from_the_default() -> None:
    assert Stage(method={"path": "a"}).method == Source(path=Path("a"))


def settings_classes(parent: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Every settings class of the package."""
    for module in pkgutil.walk_packages(puna.__path__, "puna."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = [parent]
    for one in classes:
        classes += one.__subclasses__()
    return (one for one in dict.fromkeys(classes) if one.__module__.startswith("puna."))


def partial_blocks(default: Settings) -> Iterator[dict[str, object]]:
    """Tables that name one value of a block, at any depth, and give it the value it has anyway."""
    for key in type(default).model_fields:
        value = getattr(default, key)
        yield {key: value}
        if isinstance(value, Settings):
            yield from ({key: inner} for inner in partial_blocks(value))


def test_no_partial_block_of_any_stage_changes_what_it_does_not_name() -> None:
    """`policy_optimizer.max_grad_norm = 0.5` once set the learning rate to 300 times the paper's."""
    n_blocks = 0
    for one in settings_classes():
        for name, field in one.model_fields.items():
            if not isinstance(field.default, Settings):
                continue
            block = type("Block", (Settings,), {"__annotations__": {name: field.annotation}, name: field})
            for table in partial_blocks(field.default):
                assert getattr(block.model_validate({name: table}), name) == field.default, (one, name, table)
                n_blocks += 1
    assert n_blocks > 200
