"""Gives a command the options that a declaration lists: typer reads a function's signature, so one is made for it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["REQUIRED", "keyword", "with_options"]

REQUIRED: Any = ...
"""The default of an option that must be given, as typer writes it."""


def keyword(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    """One option, as a keyword of the command."""
    value = inspect.Parameter.empty if default in (REQUIRED, inspect.Parameter.empty) else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)


def with_options(
    command: Callable[..., None], options: Sequence[inspect.Parameter], *, name: str, doc: str
) -> Callable[..., None]:
    """A function that takes these keywords and hands them to the command."""

    def run(**given: Any) -> None:
        command(**given)

    run.__name__, run.__doc__ = name, doc
    run.__signature__ = inspect.Signature(list(options))  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
