"""Pydantic's complaints about settings as one ConfigError about one key, for files and for options alike."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from puna.core.errors import ConfigError

__all__ = ["models_in", "option_error", "settings_error"]


def settings_error(
    error: ValidationError, model: type[BaseModel], where: Callable[[str], str]
) -> ConfigError:
    """One complaint about a tree of settings; a misspelled key comes with the nearest known one.

    An unknown key goes before a missing one: it is often the missing one, misspelled or in the wrong table.

    Args:
        model: What was validated.
        where: Says where a key, such as `loop.batch_size`, was given.
    """
    complaints = error.errors()
    first = next((each for each in complaints if each["type"] == "extra_forbidden"), complaints[0])
    location = first["loc"]
    place = where(".".join(map(str, location)) or "the recipe")
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        fix = (
            f"Did you mean {nearest[0]!r}?" if nearest else f"Known keys here: {', '.join(known) or 'none'}."
        )
        return ConfigError(where=place, expected="a known key", got=repr(str(location[-1])), fix=fix)
    if first["type"] == "missing":
        return ConfigError(
            where=place, expected="a value", got="nothing", fix=f"Add {location[-1]} to the settings."
        )
    if first["type"] == "value_error":
        return ConfigError(
            where=place,
            expected="settings that agree with one another",
            got=first["msg"].removeprefix("Value error, "),
            fix="Correct one of them.",
        )
    return ConfigError(
        where=place,
        expected=first["msg"].removeprefix("Input should be "),
        got=repr(first["input"]),
        fix="Correct this value.",
    )


def option_error(error: ValidationError) -> ConfigError:
    """The first complaint about settings whose fields are options of a command: `seq_len` is `--seq-len`."""
    first = error.errors()[0]
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if expected.startswith(("greater", "less")):
        expected = f"a number {expected}"
    return ConfigError(
        where="--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "these options together",
        expected=expected,
        got=str(first["input"]),
        fix="Correct this value.",
    )


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys allowed at a place in nested settings; parts that name no field are list indices or tags."""
    models = [model]
    for part in location:
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        if fields:
            models = [inner for field in fields for inner in models_in(field.annotation)]
    return sorted({name for m in models for name in m.model_fields})


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every settings class inside an annotation such as `dict[str, A | B] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)
