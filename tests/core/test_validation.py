"""Complaints about options: the option as it is typed, and what it may be."""

import pytest
from pydantic import Field, ValidationError, model_validator

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.core.validation import option_error, settings_error


class Options(Settings):
    max_seq_len: int = Field(default=8, ge=1, le=64)
    name: str = "a"

    @model_validator(mode="after")
    def _short(self) -> "Options":
        if len(self.name) > self.max_seq_len:
            raise ValueError("a name that fits")
        return self


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_seq_len": 0}, "--max-seq-len: expected a number greater than or equal to 1, got 0"),
        ({"max_seq_len": 65}, "--max-seq-len: expected a number less than or equal to 64, got 65"),
        ({"max_seq_len": "x"}, "--max-seq-len: expected a valid integer, unable to parse"),
        ({"name": "abc", "max_seq_len": 2}, "these options together: expected a name that fits"),
    ],
)
def test_an_option_is_named_as_it_is_typed(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Options(**given)  # type: ignore[arg-type]
    error = option_error(caught.value)
    assert isinstance(error, ConfigError)
    assert str(error).startswith(message)


def test_settings_that_contradict_one_another_are_told_without_all_the_others() -> None:
    with pytest.raises(ValidationError) as caught:
        Options(name="abc", max_seq_len=2)
    error = settings_error(caught.value, Options, lambda key: f"a.toml, {key}")
    assert str(error) == (
        "a.toml, the recipe: expected settings that agree with one another, got a name that fits. "
        "Correct one of them."
    )
