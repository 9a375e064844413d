"""Write docs/settings.md, the reference of all settings, from the classes and the docstrings under their fields.

Run `python docs/write_settings.py` after a setting changed; a test says when the page is not current.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import puna
from puna.core.config import Settings
from puna.core.manifest import FileReference, InputReference, Manifest
from puna.training.token_shards import ShardFile, ShardIndex

PAGE = Path(__file__).with_name("settings.md")
FILE_FORMATS = (FileReference, InputReference, Manifest, ShardFile, ShardIndex)
"""Contents of files that puna writes for itself: nobody sets them."""
MAX_DEFAULT_CHARS = 60

HEAD = """# Settings

Every settings class with its fields, written by `python docs/write_settings.py` from the docstrings in the source.
How recipes are written, and how a value is set on the command line, is in the tutorials.
"""


def settings_classes() -> list[type[Settings]]:
    """All of them, by module and name."""
    for module in pkgutil.walk_packages(puna.__path__, "puna."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = {kind for kind in _subclasses(Settings) if kind.__module__.startswith("puna.")}
    return sorted(classes - set(FILE_FORMATS), key=lambda kind: (kind.__module__, kind.__name__))


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(kind) for kind in settings_classes())])


def _subclasses(kind: type[Settings]) -> Iterator[type[Settings]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _section(kind: type[Settings]) -> str:
    documented = documented_fields(kind)
    rows = [
        f"| `{name}` | `{documented[name][0]}` | {_default(field.get_default(call_default_factory=True))} | "
        f"{documented[name][1]} |".replace("  ", " ")
        for name, field in kind.model_fields.items()
    ]
    first = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    where = f"`src/{kind.__module__.replace('.', '/')}.py`"
    table = ["| name | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {kind.__name__}", "", f"{first} ({where})", "", *table, ""])


def documented_fields(kind: type[Settings]) -> dict[str, tuple[str, str]]:
    """Type and docstring of each field, those of the bases included."""
    fields: dict[str, tuple[str, str]] = {}
    for owner in reversed(kind.__mro__):
        if not (issubclass(owner, Settings) and owner is not Settings):
            continue
        [node] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(node, ast.ClassDef)
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                kind_text = ast.unparse(statement.annotation).replace("|", "\\|")
                fields[statement.target.id] = (kind_text, _docstring(node.body[place + 1 : place + 2]))
    return fields


def _docstring(following: list[ast.stmt]) -> str:
    """The text under a field, on one line."""
    if following and isinstance(following[0], ast.Expr) and isinstance(following[0].value, ast.Constant):
        return " ".join(str(following[0].value.value).split()).replace("|", "\\|")
    return ""


def _default(value: Any) -> str:
    """A default as a reader would write it."""
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel):
        changes = ", ".join(f"{name} = {getattr(value, name)!r}" for name in sorted(value.model_fields_set))
        text = f"{type(value).__name__}({changes})"
    else:
        text = repr(value)
    if len(text) > MAX_DEFAULT_CHARS:
        text = text[: MAX_DEFAULT_CHARS - 3] + "..."
    return "`" + text.replace("|", "\\|") + "`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
