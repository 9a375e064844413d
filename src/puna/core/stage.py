"""One declaration per stage: its settings, its typed inputs, and what it writes.

A stage is a function that reads from top to bottom:

    @stage("model")
    def finetune(config: FinetuningConfig, context: StageContext, *, model: Path, dialogs: Sequence[Path]) -> Metrics:

The artifact, the command line's options and the recipe's step all come from this signature. Every parameter is an input
(a path or several), a choice (a plain value or a named collaborator), or marked `Aside`. Inputs and choices are in the
fingerprint; a parameter of any other type is refused when the module is imported, so none can be forgotten.
"""

import collections.abc
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from puna.core.artifacts import Manifest, StageContext, run_stage
from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.core.inputs import configured_inputs
from puna.core.machine import Machine
from puna.core.progress import Reporter

__all__ = ["Aside", "Metrics", "Parameter", "Stage", "stage"]

Metrics = Mapping[str, Any]
"""What a stage measured, as plain JSON values for the manifest."""

C = TypeVar("C", bound=Settings)
T = TypeVar("T")

_ASIDE = "changes nothing in the artifact"
Aside = Annotated[T, _ASIDE]
"""A parameter that does not determine the artifact, such as the processes that train together."""

Role = Literal["input", "inputs", "inputs_by_name", "choice", "aside"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One keyword of a stage."""

    name: str
    role: Role
    """input: one path; inputs: several; inputs_by_name: a mapping such as role -> folder; choice: recorded with the
    settings; aside: not recorded."""
    annotation: Any
    default: Any
    """inspect.Parameter.empty where the caller must give it."""
    help: str
    """From the docstring's Args section."""

    @property
    def is_required(self) -> bool:
        """Whether the caller must give it."""
        return self.default is inspect.Parameter.empty


class Stage(Generic[C]):
    """A declared stage; calling it makes the artifact, or finds it made."""

    def __init__(
        self,
        build: Callable[..., Metrics],
        *,
        kind: str,
        labels: Mapping[str, str] | None = None,
        keeps_state: bool = False,
    ) -> None:
        functools.update_wrapper(self, build)
        self.build = build
        """The plain function: settings, context, and its keywords."""
        self.kind = kind
        self.labels = dict(labels or {})
        self.keeps_state = keeps_state
        self.name = build.__name__
        self.config_class, self.parameters = _read_signature(build)
        self.__signature__ = _signature_of_calls(build)

    def __call__(
        self,
        config: C,
        *,
        out: Path,
        seed: int,
        machine: Machine | None = None,
        reporter: Reporter | None = None,
        labels: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Manifest:
        """Make the artifact `out`, unless it is there already from the same settings, inputs, choices and seed.

        Args:
            machine: Where to compute; None is this machine's default device.
            labels: Laid over the stage's own, in the manifest.
            given: The stage's keywords.
        Raises:
            TypeError: a keyword is unknown or missing.
            RecipeError: as `run_stage` and the stage itself do.
        """
        values = self._bind(given)
        return run_stage(
            out,
            kind=self.kind,
            config=config,
            choices={p.name: _recorded(values[p.name]) for p in self.parameters if p.role == "choice"},
            inputs=self.inputs(config, values),
            seed=seed,
            build=functools.partial(self._build, config, values),
            labels={key: text.format_map(values) for key, text in self.labels.items()} | dict(labels or {}),
            reporter=reporter,
            machine=machine,
            keeps_state=self.keeps_state,
        )

    def inputs(self, config: Settings, given: Mapping[str, Any]) -> dict[str, Path]:
        """Every path that the artifact is made from, by the name that its manifest gives it.

        Raises:
            ConfigError: two inputs have one name, so the manifest would forget one.
        """
        named: dict[str, Path] = {}
        for name, path in (*configured_inputs(config), *self._given_inputs(given)):
            if name in named:
                raise ConfigError(
                    where=self.name,
                    expected="a name of its own for every input",
                    got=f"{name!r} for {named[name]} and for {path}",
                    fix="Rename the source in the settings.",
                )
            named[name] = path
        return named

    def _given_inputs(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
        for parameter in self.parameters:
            value = given.get(parameter.name)
            if value is None:
                continue
            if parameter.role == "input":
                yield parameter.name, value
            elif parameter.role == "inputs":
                yield from ((f"{parameter.name}.{number}", path) for number, path in enumerate(value))
            elif parameter.role == "inputs_by_name":
                yield from ((f"{parameter.name}.{name}", path) for name, path in sorted(value.items()))

    def _bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        known = {parameter.name for parameter in self.parameters}
        missing = [p.name for p in self.parameters if p.is_required and p.name not in given]
        if unknown := sorted(set(given) - known):
            raise TypeError(f"{self.name}() got unexpected keywords {unknown}; it knows {sorted(known)}")
        if missing:
            raise TypeError(f"{self.name}() misses the keywords {missing}")
        return {p.name: given.get(p.name, p.default) for p in self.parameters}

    def _build(self, config: C, values: Mapping[str, Any], context: StageContext) -> Metrics:
        return self.build(config, context, **values)

    def __reduce__(self) -> str:
        """Pickled by its name, as functions are: a worker imports the module that declares it."""
        return self.build.__qualname__


def stage(
    kind: str, *, labels: Mapping[str, str] | None = None, keeps_state: bool = False
) -> Callable[[Callable[..., Metrics]], Stage[Any]]:
    """Declare a stage that writes artifacts of this kind.

    Args:
        labels: What tells its artifacts from others of the kind; a caller may add to them. A label may name a keyword
            of the stage: "{role}" is the role that was given.
        keeps_state: The stage itself checks that it may continue an interrupted build under changed settings.
    """

    def declare(build: Callable[..., Metrics]) -> Stage[Any]:
        return Stage(build, kind=kind, labels=labels, keeps_state=keeps_state)

    return declare


def _signature_of_calls(build: Callable[..., Metrics]) -> inspect.Signature:
    """How a stage is called: the function's keywords, and in place of its context those of every stage."""
    config, _, *own = inspect.signature(build).parameters.values()
    shared = inspect.signature(Stage.__call__).parameters.values()
    keywords = [p for p in (*own, *shared) if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return inspect.Signature([config, *keywords])


def _read_signature(build: Callable[..., Metrics]) -> tuple[type[Settings], tuple[Parameter, ...]]:
    hints = get_type_hints(build, include_extras=True)
    parameters = list(inspect.signature(build).parameters.values())
    if len(parameters) < 2:
        raise TypeError(f"{build.__name__} must take its settings and its StageContext first")
    config_class, context_class = (hints.get(p.name) for p in parameters[:2])
    if not (isinstance(config_class, type) and issubclass(config_class, Settings)):
        raise TypeError(f"the first parameter of {build.__name__} must be its settings, not {config_class}")
    if context_class is not StageContext:
        raise TypeError(f"the second parameter of {build.__name__} must be its StageContext")
    texts = dict(_argument_texts(inspect.getdoc(build) or ""))
    keywords = []
    for p in parameters[2:]:
        _check_keyword(p)
        role = _role(hints.get(p.name), p.name)
        if role == "choice" and p.name in config_class.model_fields:
            raise TypeError(f"the choice {p.name} would replace the setting of that name in the fingerprint")
        keywords.append(Parameter(p.name, role, hints[p.name], p.default, texts.get(p.name, "")))
    return config_class, tuple(keywords)


def _check_keyword(parameter: inspect.Parameter) -> None:
    if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        raise TypeError(f"parameter {parameter.name}: a stage names each of its keywords")
    if parameter.name in inspect.signature(Stage.__call__).parameters:
        raise TypeError(f"parameter {parameter.name}: every stage has a keyword of that name already")


def _role(annotation: Any, name: str) -> Role:
    """What a parameter is, by its type alone."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and _ASIDE in annotation.__metadata__:
        return "aside"
    if origin in (Union, types.UnionType):
        roles = {_role(part, name) for part in arguments if part is not type(None)}
        if len(roles) == 1:
            return roles.pop()
        raise TypeError(f"parameter {name} is a path or something else: give it one meaning")
    if annotation is Path:
        return "input"
    if (
        origin is collections.abc.Mapping
        and arguments[1:] == (Path,)
        and _role(arguments[0], name) == "choice"
    ):
        return "inputs_by_name"
    if origin is collections.abc.Sequence and arguments:
        if arguments[0] is Path:
            return "inputs"
        if _role(arguments[0], name) == "choice":
            return "choice"
    is_plain = annotation in (str, int, float, bool) or origin is Literal
    if is_plain or getattr(annotation, "_is_protocol", False):
        return "choice"
    raise TypeError(
        f"parameter {name} of type {annotation}: a stage takes paths, plain values, protocols of named "
        "collaborators, and what is marked Aside"
    )


def _recorded(value: Any) -> Any:
    """A choice as a plain JSON value: a collaborator by its name, or by its class where it has none."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Sequence):
        return [_recorded(member) for member in value]
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else getattr(value, "__name__", type(value).__name__)


def _argument_texts(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and text of each entry of a Google-style Args section."""
    _, has_section, section = f"\n{docstring}".partition("\nArgs:\n")
    if not has_section:
        return
    name, parts = "", list[str]()
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if line.startswith("     "):
            parts.append(line.strip())
            continue
        if name:
            yield name, " ".join(parts)
        name, _, text = line.strip().partition(": ")
        parts = [text]
    if name:
        yield name, " ".join(parts)
