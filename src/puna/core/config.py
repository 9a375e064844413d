"""Settings and recipes: a TOML file, one optional base, `a.b=value` overrides, and frozen models at the end.

The resolved settings are the whole truth about a run. One variable of the environment names inputs, PUNA_DATA: see
inputs.py.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from puna.core.errors import ConfigError
from puna.core.validation import models_in, settings_error

__all__ = ["Settings", "changed", "load_recipe", "load_settings", "merge", "resolve"]


class Settings(BaseModel):
    """Base of all settings: immutable, finite, and a misspelled key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _complete_partial_blocks(cls, values: Any) -> Any:
        """Lay a partly given block over its field's default, so that it changes only what it names.

        pydantic alone would complete it with the defaults of the block's class, which may be other values.
        """
        if not isinstance(values, Mapping):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {name: _completed(cls, name, defaults.get(name), value) for name, value in values.items()}


S = TypeVar("S", bound=BaseModel)


def load_recipe(path: Path, model: type[S], overrides: Sequence[str] = ()) -> S:
    """Read a recipe, lay it over its base, apply the overrides, and check the result.

    Args:
        path: TOML file; its key `base`, where it is a text, names another file, relative to this one, that has no
            base itself.
        overrides: `a.b=value` each, later ones win; value is TOML, and text that is not TOML is a string.
    Raises:
        ConfigError: names the file or override, the key, and the nearest known key.
    """
    values = _read_toml(path)
    base = values.get("base")
    if isinstance(base, str):  # a table of this name is a section: the model that a run starts from
        del values["base"]
        below = _read_toml(path.parent / base)
        if isinstance(below.get("base"), str):
            raise ConfigError(
                where=str(path.parent / base),
                expected="a recipe without a base",
                got=f"base = {below['base']!r}",
                fix=f"A base is allowed once: name that file in {path} directly.",
            )
        values = merge(below, values)
    for override in overrides:
        values = merge(values, _parse_override(override, values))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise settings_error(error, model, partial(_where_given, path, overrides)) from None


def load_settings(path: Path | None, model: type[S], overrides: Sequence[str] = ()) -> S:
    """As `load_recipe`; without a file, the defaults under the overrides."""
    if path is not None:
        return load_recipe(path, model, overrides)
    values: dict[str, Any] = {}
    for override in overrides:
        values = merge(values, _parse_override(override, values))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise settings_error(error, model, partial(_where_given, Path("settings"), overrides)) from None


def _completed(owner: type[BaseModel], name: str, default: Any, given: Any) -> Any:
    """A partly given block with what the default sets and the block does not name; anything else as given.

    Only where the field's type is the one class of the default: in a union another class may be meant.
    """
    if not (isinstance(default, BaseModel) and isinstance(given, Mapping)):
        return given
    if list(models_in(owner.model_fields[name].annotation)) != [type(default)]:
        return given
    below = {key: getattr(default, key) for key in default.model_fields_set}
    return below | {
        key: _completed(type(default), key, below.get(key), value) for key, value in given.items()
    }


def resolve(settings: BaseModel) -> dict[str, Any]:
    """Settings as plain JSON values, defaults included, without what is no part of a fingerprint."""
    return settings.model_dump(mode="json")


def changed(settings: S, changes: Mapping[str, Any]) -> S:
    """The same settings with some of them replaced, table by table; what is not named stays, whatever it is.

    Raises:
        ValidationError: a change names no setting, or gives it a value that it cannot have.
    """
    return type(settings).model_validate(merge(_tables(settings), changes))


def _tables(settings: BaseModel) -> dict[str, Any]:
    """Every field, also those that `resolve` leaves out; settings within settings become tables."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return {name: _tables(value) if isinstance(value, BaseModel) else value for name, value in values.items()}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        got = error.strerror or str(error)
        raise ConfigError(where=str(path), expected="a recipe file", got=got, fix="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = "Correct the file at that place."
        raise ConfigError(where=str(path), expected="valid TOML", got=str(error), fix=fix) from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _parse_override(override: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `a.b=value` into {"a": {"b": value}}."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(
            where=f"--set {override}",
            expected="key.subkey=value",
            got=repr(override),
            fix="Write for example --set seed=1.",
        )
    parent: Any = values
    for part in parts[:-1]:
        parent = parent.get(part, {})
        if not isinstance(parent, dict):
            raise ConfigError(
                where=f"--set {override}",
                expected=f"{part} to be a table of settings",
                got=f"the value {parent!r}",
                fix=f"Set {part} itself.",
            )
    nested = _parse_value(text.strip())
    for part in reversed(parts):
        nested = {part: nested}
    return nested


def _parse_value(text: str) -> Any:
    """One TOML value; what is not TOML is taken as a bare string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _where_given(path: Path, overrides: Sequence[str], key: str) -> str:
    """Where a key came from: the file, or the command line."""
    names = [text.partition("=")[0] for text in overrides]
    is_override = any(key == name or key.startswith(f"{name}.") for name in names)
    return f"{'--set' if is_override else path}, key {key}"
