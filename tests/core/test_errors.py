"""Every error speaks in the same four parts and ends the command with code 2."""

import pytest

from puna.core import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS)
def test_message_says_what_where_and_what_to_do(kind: type[errors.RecipeError]) -> None:
    error = kind(where="a.toml", expected="a number", got="'x'", fix="Correct it.")
    assert str(error) == "a.toml: expected a number, got 'x'. Correct it."
    assert error.exit_code == 2
    assert kind.__doc__


def test_contamination_is_a_data_error() -> None:
    assert issubclass(errors.ContaminationError, errors.DataError)
