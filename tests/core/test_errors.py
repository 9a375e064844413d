"""Every error speaks in the same four parts and ends the command with code 2."""

import pickle

import pytest

from puna.core import errors

KINDS = [kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), errors.RecipeError)]


@pytest.mark.parametrize("kind", KINDS)
def test_message_says_what_where_and_what_to_do(kind: type[errors.RecipeError]) -> None:
    error = kind(where="a.toml", expected="a number", got="'x'", fix="Correct it.")
    assert str(error) == "a.toml: expected a number, got 'x'. Correct it."
    assert error.exit_code == 2
    assert kind.__doc__


def test_errors_travel_between_processes_whole() -> None:
    for kind in KINDS:
        error = kind(where="a.toml", expected="a number", got="'x'", fix="Correct it.")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert copy.__dict__ == error.__dict__
        assert str(copy) == str(error)


def test_a_preempted_run_ends_well_and_says_how_to_go_on() -> None:
    ended = errors.Preempted("SIGTERM", "update 3 of 9")
    assert ended.exit_code == 0
    assert not isinstance(ended, errors.RecipeError)
    assert "SIGTERM after update 3 of 9" in str(ended)
    assert "Run the same command again" in str(ended)
