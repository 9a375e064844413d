"""A stage's signature decides what is in its fingerprint: every input by content, every choice, and nothing else."""

import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Union

import pytest
import torch
from pydantic import Field

from puna.core.artifacts import StageContext, read_manifest, verify
from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.core.inputs import InputSource
from puna.core.machine import Machine
from puna.core.progress import quiet
from puna.core.stage import Aside, Metrics, Stage, stage
from puna.recipe.side_by_side import run_side_by_side


class FileSource(InputSource):
    """One file, or nothing."""

    path: str | None = None

    def input_path(self) -> Path | None:
        return Path(self.path) if self.path else None


class Section(Settings):
    sources: tuple[FileSource, ...] = ()
    by_name: dict[str, FileSource] = Field(default_factory=dict)
    best: FileSource | None = None


class Cooking(Settings):
    minutes: int = 3
    salt: FileSource = FileSource(name="salt")
    section: Section = Section()


class Taster(Protocol):
    """A collaborator of a stage."""

    def taste(self, dish: str) -> float:
        """Between 0 and 1."""
        ...


class NamedTaster:
    def __init__(self, name: str) -> None:
        self.name = name

    def taste(self, dish: str) -> float:
        return 0.5


class PlainTaster:
    def taste(self, dish: str) -> float:
        return 0.5


class OtherTaster(PlainTaster):
    def name(self) -> str:
        """No plain text: its class stands for it."""
        return "a method"


@stage("dish", labels={"course": "main", "menu": "daily"})
def cook(
    config: Cooking,
    context: StageContext,
    *,
    base: Path,
    herb: Path | None = None,
    spices: Sequence[Path] = (),
    sauces: Mapping[str, Path] | None = None,
    aim: Literal["soup", "stew"] = "soup",
    heat: float | None = None,
    words: Sequence[str] = (),
    tasters: Sequence[Taster] = (),
    taster: Taster | None = None,
    cooks: Aside[int] = 1,
    kitchen: Aside[Path] | None = None,
) -> Metrics:
    """Cook one dish.

    Args:
        base: What is cooked,
            for a long time: an hour.
        aim: Soup or stew.
    Returns:
        heat: not an argument.
    """
    (context.folder / "dish.txt").write_text(base.read_text() + aim)
    with (context.folder / "metrics.jsonl").open("a") as log:
        log.write(f"{context.device} {cooks}\n")
    return {"device": str(context.device)}


@pytest.fixture
def pantry(tmp_path: Path) -> Path:
    for name in ("water", "thyme", "pepper", "curry", "red", "green", "salt", "nut", "egg", "oil"):
        (tmp_path / name).write_text(name)
    return tmp_path


def source(pantry: Path, name: str) -> FileSource:
    return FileSource(name=name, path=str(pantry / name))


def full_call(pantry: Path) -> tuple[Cooking, dict[str, Any]]:
    """Every way in which a stage can get a path."""
    section = Section(
        sources=(source(pantry, "nut"),), by_name={"x": source(pantry, "egg")}, best=source(pantry, "oil")
    )
    return Cooking(salt=source(pantry, "salt"), section=section), {
        "base": pantry / "water",
        "herb": pantry / "thyme",
        "spices": [pantry / "pepper", pantry / "curry"],
        "sauces": {"red": pantry / "red", "green": pantry / "green"},
    }


NAMES = {
    "water": "base",
    "thyme": "herb",
    "pepper": "spices.0",
    "curry": "spices.1",
    "red": "sauces.red",
    "green": "sauces.green",
    "salt": "salt",
    "nut": "nut",
    "egg": "egg",
    "oil": "oil",
}


def fingerprint(out: Path, config: Cooking | None = None, **given: Any) -> str:
    return cook(config or Cooking(), out=out, seed=0, **given).fingerprint


def test_the_manifest_names_every_input(pantry: Path) -> None:
    config, given = full_call(pantry)
    manifest = cook(config, out=pantry / "out", seed=5, **given)
    assert {name: Path(ref.path).name for name, ref in manifest.inputs.items()} == {
        name: file for file, name in NAMES.items()
    }
    assert manifest == verify(pantry / "out")
    assert (manifest.kind, manifest.seed) == ("dish", 5)


@pytest.mark.parametrize("file", NAMES)
def test_each_input_is_in_the_fingerprint_by_its_content(pantry: Path, file: str) -> None:
    config, given = full_call(pantry)
    before = fingerprint(pantry / "out", config, **given)
    (pantry / file).write_text("other text")
    changed = cook(config, out=pantry / "out", seed=0, **given)
    assert changed.fingerprint != before
    (pantry / file).write_text(file)
    assert fingerprint(pantry / "out", config, **given) == before, (
        "the path and the date of a file do not matter"
    )


def test_a_moved_input_changes_nothing(pantry: Path) -> None:
    before = fingerprint(pantry / "out", base=pantry / "water")
    moved = (pantry / "water").rename(pantry / "elsewhere")
    assert fingerprint(pantry / "out", base=moved) == before


def test_the_role_and_the_order_of_inputs_count(pantry: Path) -> None:
    a, b = pantry / "red", pantry / "green"
    calls: list[dict[str, Any]] = [
        {"spices": [a, b]},
        {"spices": [b, a]},
        {"spices": [a]},
        {"herb": a},
        {"sauces": {"red": a, "green": b}},
        {"sauces": {"red": b, "green": a}},
        {},
    ]
    prints = [fingerprint(pantry / f"out{i}", base=a, **call) for i, call in enumerate(calls)]
    assert len(set(prints)) == len(calls)
    turned = fingerprint(pantry / "turned", base=a, sauces={"green": b, "red": a})
    assert turned == prints[4], "a mapping has no order"


def test_an_input_that_is_missing_is_refused_before_anything_is_written(pantry: Path) -> None:
    before = sorted(pantry.iterdir())
    with pytest.raises(Exception, match="nowhere"):
        cook(Cooking(), out=pantry / "out", seed=0, base=pantry / "nowhere")
    assert sorted(pantry.iterdir()) == before


def test_two_inputs_of_one_name_are_refused(pantry: Path) -> None:
    """The second would take the first one's place in the fingerprint."""
    twins = (FileSource(name="nut", path=str(pantry / "egg")), source(pantry, "nut"))
    for config in (
        Cooking(section=Section(sources=twins)),
        Cooking(salt=twins[0], section=Section(best=twins[1])),
        Cooking(salt=FileSource(name="base", path=str(pantry / "salt"))),
    ):
        with pytest.raises(ConfigError, match="a name of its own"):
            cook(config, out=pantry / "out", seed=0, base=pantry / "water")
    assert not (pantry / "out").exists()


CHOICES: list[tuple[str, Any, Any]] = [
    ("aim", "stew", "stew"),
    ("heat", 0.25, 0.25),
    ("words", ("a", "b"), ["a", "b"]),
    ("taster", NamedTaster("ann"), "ann"),
    ("taster", PlainTaster(), "PlainTaster"),
    ("taster", OtherTaster(), "OtherTaster"),
    ("tasters", [NamedTaster("ann"), NamedTaster("bob")], ["ann", "bob"]),
]


def test_choices_are_recorded_with_the_settings_and_change_the_fingerprint(pantry: Path) -> None:
    base = pantry / "water"
    defaults = {"aim": "soup", "heat": None, "words": [], "tasters": [], "taster": None}
    plain = cook(Cooking(), out=pantry / "out", seed=0, base=base)
    assert plain.config == Cooking().model_dump(mode="json") | defaults
    prints = {plain.fingerprint}
    for name, value, recorded in CHOICES:
        manifest = cook(Cooking(), out=pantry / "out", seed=0, base=base, **{name: value})
        assert manifest.config == plain.config | {name: recorded}
        prints.add(manifest.fingerprint)
    assert len(prints) == 1 + len(CHOICES)


def sweet() -> float:
    return 1.0


def sour() -> float:
    return 0.0


def test_functions_and_classes_as_collaborators_are_told_apart(pantry: Path) -> None:
    class Measure(Protocol):
        """Anything."""

    def measure(config: Cooking, context: StageContext, *, by: Measure) -> Metrics:
        return {}

    measuring = stage("dish")(measure)
    made = [measuring(Cooking(), out=pantry / "out", seed=0, by=by) for by in (sweet, sour, PlainTaster)]
    assert [manifest.config["by"] for manifest in made] == ["sweet", "sour", "PlainTaster"]
    assert len({manifest.fingerprint for manifest in made}) == 3


def test_settings_seed_and_labels_are_in_the_fingerprint(pantry: Path) -> None:
    call = functools.partial(cook, out=pantry / "out", base=pantry / "water")
    prints = {
        call(Cooking(), seed=0).fingerprint,
        call(Cooking(), seed=1).fingerprint,
        call(Cooking(minutes=4), seed=0).fingerprint,
        call(Cooking(), seed=0, labels={"menu": "feast"}).fingerprint,
    }
    assert len(prints) == 4


def test_what_is_aside_and_the_machine_change_nothing(pantry: Path) -> None:
    made = cook(Cooking(), out=pantry / "out", seed=0, base=pantry / "water", machine=Machine(device="cpu:0"))
    assert made.metrics == {"device": "cpu:0"}
    again = cook(
        Cooking(),
        out=pantry / "out",
        seed=0,
        base=pantry / "water",
        machine=Machine(threads=1, matmul_precision="high"),
        cooks=7,
        kitchen=pantry / "oil",
    )
    assert again == made, "it was skipped"
    assert "cooks" not in made.config
    assert list(made.inputs) == ["base"]


def test_without_a_machine_the_default_one_is_used(pantry: Path) -> None:
    made = cook(Cooking(), out=pantry / "out", seed=0, base=pantry / "water")
    assert made.metrics == {"device": str(Machine().torch_device)}


def test_labels_are_laid_over_the_stages_own(pantry: Path) -> None:
    made = cook(
        Cooking(), out=pantry / "out", seed=0, base=pantry / "water", labels={"menu": "feast", "for": "ann"}
    )
    assert made.labels == {"course": "main", "menu": "feast", "for": "ann"}
    assert cook.labels == {"course": "main", "menu": "daily"}, "the declaration stays as it was"
    assert cook(Cooking(), out=pantry / "out", seed=0, base=pantry / "water").labels == cook.labels


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"cook\(\) misses the keywords \['base'\]"),
        ({"base": "water", "basse": "water"}, r"cook\(\) got unexpected keywords \['basse'\]"),
        ({"base": "water", "config": Cooking()}, "config"),
    ],
)
def test_wrong_keywords_are_refused_before_anything_is_written(
    pantry: Path, given: dict[str, Any], message: str
) -> None:
    before = sorted(pantry.iterdir())
    paths = {name: pantry / value if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(TypeError, match=message):
        cook(Cooking(), out=pantry / "run" / "out", seed=0, **paths)
    assert sorted(pantry.iterdir()) == before


def test_parameters_carry_role_default_and_help() -> None:
    assert {p.name: p.role for p in cook.parameters} == {
        "base": "input",
        "herb": "input",
        "spices": "inputs",
        "sauces": "inputs_by_name",
        "aim": "choice",
        "heat": "choice",
        "words": "choice",
        "tasters": "choice",
        "taster": "choice",
        "cooks": "aside",
        "kitchen": "aside",
    }
    assert [p.name for p in cook.parameters if p.is_required] == ["base"]
    texts = {p.name: p.help for p in cook.parameters if p.help}
    assert texts == {"base": "What is cooked, for a long time: an hour.", "aim": "Soup or stew."}
    assert (cook.name, cook.kind, cook.config_class) == ("cook", "dish", Cooking)
    assert cook.__doc__ is not None
    assert cook.__doc__.startswith("Cook one dish.")


def test_a_docstring_without_arguments_gives_no_help() -> None:
    def silent(config: Cooking, context: StageContext, *, base: Path) -> Metrics:
        return {}

    def terse(config: Cooking, context: StageContext, *, base: Path) -> Metrics:
        """
        Args:
            base: Water.
        """
        return {}

    assert [p.help for p in Stage(silent, kind="x").parameters] == [""]
    assert [p.help for p in Stage(terse, kind="x").parameters] == ["Water."]


UNCLEAR = [
    Any,
    object,
    None,
    bytes,
    dict[str, Path],
    list[Path],
    tuple[Path, ...],
    set[str],
    Mapping,
    Sequence,
    Mapping[str, int],
    Mapping[str, Path | None],
    Mapping[str, Sequence[Path]],
    Mapping[Path, Path],
    Sequence[Path | None],
    Sequence[Sequence[Path]],
    Sequence[Mapping[str, Path]],
    Sequence[Aside[Path]],
    Sequence[Any],
    Path | str,
    Path | Sequence[Path],
    Aside[Path] | Path,
    dict[str, Any] | None,
    int | Path | None,
    Union[int, Path],  # noqa: UP007
    Annotated[Path, "something else"],
    Callable[[], float],
    Settings,
    Cooking,
    torch.Tensor,
    NamedTaster,
]


@pytest.mark.parametrize("annotation", UNCLEAR, ids=str)
def test_a_parameter_of_unclear_type_is_refused_at_declaration(annotation: Any) -> None:
    def build(config: Cooking, context: StageContext, *, thing: Any) -> Metrics:
        return {}

    build.__annotations__["thing"] = annotation
    with pytest.raises(TypeError, match="parameter thing"):
        stage("x")(build)


CLEAR = [
    (Path, "input"),
    (Union[Path, None], "input"),  # noqa: UP007
    (Sequence[Path] | None, "inputs"),
    (Mapping[str, Path] | None, "inputs_by_name"),
    (Mapping[Literal["a", "b"], Path], "inputs_by_name"),
    (str | int | None, "choice"),
    (bool, "choice"),
    (Sequence[Sequence[str]], "choice"),
    (Sequence[Taster] | None, "choice"),
    (Aside[Path | None], "aside"),
    (Aside[torch.Tensor] | None, "aside"),
    (Aside[Any], "aside"),
]


@pytest.mark.parametrize(("annotation", "role"), CLEAR, ids=str)
def test_what_a_parameter_is_follows_from_its_type(annotation: Any, role: str) -> None:
    def build(config: Cooking, context: StageContext, *, thing: Any = None) -> Metrics:
        return {}

    build.__annotations__["thing"] = annotation
    assert [p.role for p in stage("x")(build).parameters] == [role]


def test_a_parameter_without_type_is_refused() -> None:
    def build(config: Cooking, context: StageContext, *, thing: int) -> Metrics:
        return {}

    del build.__annotations__["thing"]
    with pytest.raises(TypeError, match="parameter thing"):
        stage("x")(build)


@pytest.mark.parametrize("name", ["out", "seed", "machine", "reporter", "labels"])
def test_a_parameter_that_every_stage_has_is_refused(name: str) -> None:
    """The stage's own could never be given: the call would take it for itself."""
    scope: dict[str, Any] = {"Cooking": Cooking, "StageContext": StageContext, "Metrics": Metrics}
    exec(f"def build(c: Cooking, context: StageContext, *, {name}: int = 0) -> Metrics: return {{}}", scope)
    with pytest.raises(TypeError, match=f"parameter {name}"):
        stage("x")(scope["build"])


def test_a_choice_that_would_hide_a_setting_is_refused() -> None:
    def build(config: Cooking, context: StageContext, *, minutes: int = 3) -> Metrics:
        return {}

    with pytest.raises(TypeError, match="minutes"):
        stage("x")(build)


def test_keywords_without_names_are_refused() -> None:
    def many(config: Cooking, context: StageContext, *paths: Path) -> Metrics:
        return {}

    def any_name(config: Cooking, context: StageContext, **paths: Path) -> Metrics:
        return {}

    def by_place(config: Cooking, context: StageContext, path: Path, /) -> Metrics:
        return {}

    for build in (many, any_name, by_place):
        with pytest.raises(TypeError, match="names each of its keywords"):
            stage("x")(build)


def test_settings_and_context_come_first() -> None:
    def no_settings(base: Path, context: StageContext) -> Metrics:
        return {}

    def no_context(config: Cooking, base: Path) -> Metrics:
        return {}

    def turned(context: StageContext, config: Cooking) -> Metrics:
        return {}

    def alone(config: Cooking) -> Metrics:
        return {}

    for build, message in (
        (no_settings, "must be its settings"),
        (no_context, "must be its StageContext"),
        (turned, "must be its settings"),
        (alone, "its settings and its StageContext"),
    ):
        with pytest.raises(TypeError, match=message):
            stage("x")(build)


def test_a_stage_that_keeps_its_state_continues_under_other_settings(pantry: Path) -> None:
    def grow(config: Cooking, context: StageContext) -> Metrics:
        kept = context.state / "kept"
        was_there = kept.exists()
        kept.touch()
        if config.minutes == 3:
            raise KeyboardInterrupt
        return {"was_there": was_there}

    for keeps_state in (True, False):
        growing = stage("x", keeps_state=keeps_state)(grow)
        with pytest.raises(KeyboardInterrupt):
            growing(Cooking(), out=pantry / f"{keeps_state}", seed=0)
        made = growing(Cooking(minutes=4), out=pantry / f"{keeps_state}", seed=0)
        assert made.metrics == {"was_there": keeps_state}


def test_a_stage_is_pickled_by_its_name() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(cook, protocol)) is cook
    job = pickle.loads(pickle.dumps(functools.partial(cook, Cooking(), seed=1)))
    assert job.func is cook


def test_stages_run_in_workers_of_their_own(pantry: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        jobs = {
            name: functools.partial(
                cook,
                Cooking(),
                out=pantry / name,
                seed=0,
                base=pantry / "water",
                machine=Machine(device="cpu"),
            )
            for name in ("a", "b")
        }
        run_side_by_side(jobs, reporter=quiet())
    finally:
        torch.set_num_threads(before)
    one, two = (read_manifest(pantry / name) for name in jobs)
    assert one.fingerprint == two.fingerprint
    assert one.hardware["threads"] == 1, "made in a worker"
    here = cook(Cooking(), out=pantry / "a", seed=0, base=pantry / "water")
    assert here == one, "the same stage, called here, finds it made"
