"""Every setting is shown somewhere and documented: one that nobody can know of is a constant, or nothing."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _load(ROOT / "docs" / "write_settings.py")
CLASSES = REFERENCE.settings_classes()


def _words_shown() -> set[str]:
    """The words of recipes, hand-written documents and tests; an option of the command line shows its setting."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.toml")]
    files = [*pages, *(path for end in ("*.py", "*.toml") for path in (ROOT / "tests").rglob(end))]
    texts = [path.read_text(encoding="utf-8") for path in files if path != REFERENCE.PAGE]
    return {word.replace("-", "_") for text in texts for word in re.findall(r"\w+(?:-\w+)*", text)} | {
        word for text in texts for word in re.findall(r"\w+", text)
    }


WORDS = _words_shown()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_occurs_in_a_recipe_a_document_or_a_test(kind: Any) -> None:
    assert sorted(set(kind.model_fields) - WORDS) == [], "make it a constant with its source, or show it"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_says_what_it_means(kind: Any) -> None:
    documented = REFERENCE.documented_fields(kind)
    assert [name for name in kind.model_fields if not documented[name][1]] == []


def test_no_two_classes_of_settings_share_a_name() -> None:
    names = [kind.__name__ for kind in CLASSES]
    assert sorted(set(names)) == sorted(names)


def test_the_reference_is_current() -> None:
    written = REFERENCE.PAGE.read_text(encoding="utf-8")
    assert written == REFERENCE.page(), "run python docs/write_settings.py"
