"""The tree holds its shape: who may import whom, thin packages, small files. Read from the source with ast."""

import ast
import inspect
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from puna.model import load_model, load_score_model

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "puna").rglob("*.py"))
}

FOUNDATIONS: dict[str, set[str]] = {
    "core": set(),
    "tokenizer": {"core"},
    "model": {"core", "tokenizer"},
    "inference": {"core", "tokenizer", "model"},
    "training": {"core", "tokenizer", "model"},
}
"""Foundation -> the foundations below it."""
STAGES = {
    "pretraining_data",
    "pretraining",
    "supervised_finetuning",
    "reward_modeling",
    "ghost_attention",
    "human_feedback",
    "rlhf",
    "safety",
    "evaluation",
    "sandbox",
    "reporting",
    "planning",
}
ASIDE: dict[str, set[str]] = {"conversion": {"core", "tokenizer", "model"}}
"""What serves no stage -> the foundations it stands on; only surfaces call it."""
SURFACES: dict[str, set[str]] = {"recipe": set(), "cli": {"recipe"}, "__main__": {"cli"}}
"""Surface -> the surfaces it may join."""
MAX_INIT_LINES = 30
MAX_FILE_LINES = 450


def allowed(package: str) -> set[str]:
    """The packages this one may import, itself included."""
    if package in FOUNDATIONS:
        return FOUNDATIONS[package] | {package}
    if package in STAGES:
        return set(FOUNDATIONS) | {package}
    if package in ASIDE:
        return ASIDE[package] | {package}
    return set(FOUNDATIONS) | STAGES | set(ASIDE) | SURFACES[package] | {package}


def imports(name: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full module name of every import of our own code below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            is_package = FILES[name].name == "__init__.py"
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [module if module in FILES else base for module in inner]
        else:
            continue
        yield from ((node.lineno, target) for target in targets if target.split(".")[0] == "puna")


def parse(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


MODULES = pytest.mark.parametrize("name", FILES)


def test_every_package_has_its_place() -> None:
    found = {package_of(name) for name in FILES} - {""}
    assert found <= set(FOUNDATIONS) | STAGES | set(ASIDE) | set(SURFACES)


@MODULES
def test_imports_point_down(name: str) -> None:
    """Foundations, then stages that never import each other, then surfaces."""
    if package := package_of(name):
        wrong = [
            f"line {line}: {target}"
            for line, target in imports(name, parse(name))
            if package_of(target) not in allowed(package) | {""}
        ]
        assert not wrong


def test_imported_tokenizers_lie_below_our_own() -> None:
    """What serves other makers' tokenizers knows what all share, and nothing of ours that is built on it."""
    shared = {f"puna.tokenizer.{name}" for name in ("backend", "chat_format", "dialog_tokens")}
    below = {name for name in FILES if name.startswith("puna.tokenizer.imported")}
    targets = {target for name in below for _, target in imports(name, parse(name))}
    assert below
    assert {name for name in targets if package_of(name) == "tokenizer"} <= shared | below


@MODULES
def test_own_code_is_imported_at_the_top_only(name: str) -> None:
    functions = [n for n in ast.walk(parse(name)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [found for function in functions for found in imports(name, function)] == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {target for _, target in imports(name, parse(name))} - {name} for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", [name for name, path in FILES.items() if path.name == "__init__.py"])
def test_packages_only_reexport(name: str) -> None:
    """A docstring, imports and constants such as __all__ and __version__; nothing runs and nothing is defined."""
    tree = parse(name)
    assert ast.get_docstring(tree), "say in one sentence what the package is"
    allowed_nodes = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Expr
    assert [type(node).__name__ for node in tree.body if not isinstance(node, allowed_nodes)] == []
    assert [n for n in ast.walk(tree) if isinstance(n, ast.Call)] == []
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MAX_INIT_LINES


@MODULES
def test_modules_say_what_they_are_and_stay_small(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "the module needs a docstring"
    assert len(text.splitlines()) <= MAX_FILE_LINES


def _loads(name: str) -> Iterator[ast.Call]:
    """Calls that read a model's weights."""
    for node in ast.walk(parse(name)):
        function = node.func if isinstance(node, ast.Call) else None
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in ("load_model", "load_score_model"):
            assert isinstance(node, ast.Call)
            yield node


@MODULES
def test_models_are_loaded_where_the_machine_says(name: str) -> None:
    """Never on a device that the code itself names."""
    for call in _loads(name):
        devices = [keyword.value for keyword in call.keywords if keyword.arg == "device"]
        assert devices, f"line {call.lineno} leaves the device out"
        constants = [
            n for n in ast.walk(devices[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        assert not constants, f"line {call.lineno} names a device"


@pytest.mark.parametrize("load", [load_model, load_score_model])
def test_nobody_can_forget_the_device(load: Callable[..., object]) -> None:
    device = inspect.signature(load).parameters["device"]
    assert device.kind is inspect.Parameter.KEYWORD_ONLY
    assert device.default is inspect.Parameter.empty


def _defers_annotations(name: str) -> bool:
    nodes = [node for node in parse(name).body if isinstance(node, ast.ImportFrom)]
    return any(node.module == "__future__" for node in nodes)


@MODULES
def test_annotations_stay_checkable(name: str) -> None:
    """Deferred annotations would switch the shape checks off in silence."""
    text = FILES[name].read_text(encoding="utf-8")
    assert not ("jaxtyping" in text and _defers_annotations(name))
