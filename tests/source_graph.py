"""Which functions, classes and constants of src/ the command line reaches, read from the source with ast.

A name counts as used where it is resolved: to a definition of its own module, or through an import and the packages
that re-export it. Reaching a class reaches its methods. Reaching a module's import runs its top-level statements.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
ENTRY_POINTS = ("puna.cli.launch", "puna.cli.main", "puna.tokenizer.imported.template_worker")
"""What the console script calls, the command line that it loads by name, and a program that the tokenizer starts."""

Symbol = tuple[str, str]
"""Module and name."""
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Module:
    """One file of src/."""

    name: str
    path: Path
    tree: ast.Module
    definitions: dict[str, ast.AST] = field(default_factory=dict)
    """What the module itself binds at its top level."""
    imported: dict[str, Symbol] = field(default_factory=dict)
    """Local name -> module and name it stands for; the name is empty for a whole module."""
    statements: list[ast.AST] = field(default_factory=list)
    """What runs at import and defines nothing."""
    commands: list[str] = field(default_factory=list)
    """Functions that a decorator hands to the command line."""

    @property
    def exports(self) -> list[str]:
        """The names in `__all__`."""
        value = getattr(self.definitions.get("__all__"), "value", None)
        return ast.literal_eval(value) if value is not None else []


@cache
def modules() -> dict[str, Module]:
    """Every module of src/ by its dotted name."""
    names = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((SOURCE / "puna").rglob("*.py"))
    }
    return {name: _read(name, path, frozenset(names)) for name, path in names.items()}


def module_at(path: str) -> Module:
    """The module in a file such as src/puna/rlhf/rewards.py."""
    name = ".".join(Path(path).relative_to("src").with_suffix("").parts).removesuffix(".__init__")
    return modules()[name]


@cache
def imported_modules() -> frozenset[str]:
    """The modules that the command line imports, directly or through others."""
    seen: set[str] = set()
    waiting = list(ENTRY_POINTS)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        parts = name.split(".")
        waiting += [".".join(parts[:length]) for length in range(1, len(parts))]
        for module, symbol in modules()[name].imported.values():
            waiting += [module, f"{module}.{symbol}"]
    return frozenset(seen)


@cache
def reached_symbols(also: frozenset[Symbol] = frozenset()) -> frozenset[Symbol]:
    """Definitions that code reached from the command line refers to, and from what is named as reached too."""
    waiting: list[Symbol] = [*also, *((name, "main") for name in ENTRY_POINTS)]
    for name in imported_modules():
        module = modules()[name]
        for statement in module.statements:
            waiting += _references(module, statement)
        waiting += [(name, function) for function in module.commands]
    seen: set[Symbol] = set()
    while waiting:
        symbol = waiting.pop()
        if symbol in seen:
            continue
        seen.add(symbol)
        module = modules()[symbol[0]]
        waiting += _references(module, module.definitions[symbol[1]])
    return frozenset(seen)


def has_symbol(path: str, symbol: str) -> bool:
    """Whether the file defines `name`, `Class.method` or `Class.field`."""
    outer, _, inner = symbol.partition(".")
    node = module_at(path).definitions.get(outer)
    if node is None or not inner:
        return node is not None
    return isinstance(node, ast.ClassDef) and inner in dict(_bound(node.body))


def is_reached(path: str, symbol: str) -> bool:
    """Whether the command line's code uses it; a method or field also needs its name used somewhere."""
    outer, _, inner = symbol.partition(".")
    is_used = (module_at(path).name, outer) in reached_symbols()
    return is_used and (not inner or inner in _attribute_names() or inner in _keyword_names())


@cache
def _attribute_names() -> frozenset[str]:
    nodes = (node for module in modules().values() for node in ast.walk(module.tree))
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))


@cache
def _keyword_names() -> frozenset[str]:
    """Names given as keywords; calls that a framework makes itself, such as nn.Module's forward, count too."""
    nodes = (node for module in modules().values() for node in ast.walk(module.tree))
    return frozenset(node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg) | {"forward"}


def _read(name: str, path: Path, names: frozenset[str]) -> Module:
    module = Module(name=name, path=path, tree=ast.parse(path.read_text(encoding="utf-8")))
    for node in module.tree.body:
        bound = dict(_bound([node]))
        module.definitions.update(bound)
        if not bound and not isinstance(node, ast.Import | ast.ImportFrom):
            module.statements.append(node)
        if isinstance(node, _DEFINITIONS) and any(_is_command(item) for item in node.decorator_list):
            module.commands.append(node.name)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "puna":
            for alias in node.names:
                module.imported[alias.asname or alias.name] = (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in names:
                    module.imported[alias.asname or alias.name] = (alias.name, "")
    return module


def _is_command(decorator: ast.AST) -> bool:
    """`@app.command(...)`: typer calls what it decorates."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(function, ast.Attribute) and function.attr in ("command", "callback")


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Names that statements bind, with what they are bound to."""
    for node in body:
        if isinstance(node, _DEFINITIONS):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from ((leaf.id, node) for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def _references(module: Module, node: ast.AST) -> Iterator[Symbol]:
    """Definitions of src/ that the code below a node names."""
    for leaf in ast.walk(node):
        if isinstance(leaf, ast.Name):
            target, name = _resolved(module.name, leaf.id)
        elif isinstance(leaf, ast.Attribute) and isinstance(leaf.value, ast.Name):
            target, name = _resolved(module.name, leaf.value.id)
            target, name = _resolved(target, leaf.attr) if target and not name else ("", "")
        else:
            continue
        if target and name:
            yield target, name


def _resolved(module: str, name: str) -> Symbol:
    """The definition that a name of a module stands for, or a whole module; two empty texts where it is neither."""
    while name:
        if name in modules()[module].definitions:
            return module, name
        if name in modules()[module].imported:
            module, name = modules()[module].imported[name]
        elif f"{module}.{name}" in modules():
            module, name = f"{module}.{name}", ""
        else:
            return "", ""
    return module, name
