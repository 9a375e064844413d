"""Language identification."""

import pytest

from puna.pretraining_data.language import UNKNOWN, LanguageConfig, identify

CONFIG = LanguageConfig()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the goat eats hay. it lives in the barn.", "en"),
        ("la vaca come hierba en el campo. los niños juegan.", "es"),
        ("der hund ist braun und er schläft.\ndie kuh frisst gras.", "de"),
        ("le chien est brun et il dort dans la maison.", "fr"),
        ("def f(x):\n    return x + 1\n", UNKNOWN),
        ("7 plus 5", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_known_texts(text: str, language: str) -> None:
    assert identify(text, CONFIG) == language


def test_a_threshold_of_one_leaves_nothing_known() -> None:
    assert identify("asdf qwer zxcv uiop hjkl", LanguageConfig(threshold=1)) == UNKNOWN


def test_only_the_beginning_counts() -> None:
    text = "the goat eats hay. " * 10 + "der hund ist braun und er schläft. " * 200
    assert identify(text, LanguageConfig(max_chars=150)) == "en"
    assert identify(text, LanguageConfig(max_chars=10_000)) == "de"
