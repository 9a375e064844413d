"""README and docs keep their word: links lead somewhere, commands parse, recipes load, snippets fit the real API."""

import ast
import importlib
import inspect
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from puna.cli.main import app
from puna.cli.stage_commands import GROUPS, TOP
from puna.core.config import Settings, load_recipe, load_settings
from puna.recipe.ablation_settings import AblationRecipe
from puna.recipe.pretraining import PretrainingRecipe
from puna.recipe.settings import Figure4Recipe, builtin_recipe

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = {path.name: path for path in (ROOT / "recipes").glob("*.toml")}
PROGRAM: Any = typer.main.get_command(app)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def snippets(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, language))
    ]


def shell_commands(page: Path, program: str) -> list[list[str]]:
    """Arguments of every call of a program in the page's shell blocks; pipes and && are taken apart."""
    lines = [line for text in blocks(page, "sh") for line in text.splitlines()]
    calls = [shlex.split(part) for line in lines for part in re.split(r"&&|\|", line)]
    return [call[1:] for call in calls if call[:1] == [program]]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words after its name."""
    command, rest = PROGRAM, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def overrides_of(arguments: list[str]) -> list[str]:
    return [value for flag, value in itertools.pairwise(arguments) if flag == "--set"]


def files_shown(page: Path) -> dict[str, str]:
    """TOML files that a page shows in full: the first line of the block is a comment with the name."""
    named = [(re.match(r"# (\w+\.toml)\n", text), text) for text in blocks(page, "toml")]
    return {match[1]: text for match, text in named if match}


def settings_of(call: list[str]) -> type[Settings]:
    """The settings class of a stage's command."""
    group = GROUPS.get(call[0])
    commands, name = (group[1], call[1]) if group else (TOP, call[0])
    return next(command.stage.config_class for command in commands if command.name == name)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(place), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_shown_parses(page: Path) -> None:
    for call in shell_commands(page, "puna"):
        command, arguments = find_command(call)
        command.make_context("puna", arguments)  # fails on an unknown option or a missing argument
    for text in re.findall(r"`puna ([^`]+)`", prose(page)):
        command, arguments = find_command(text.split())
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known, text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_recipe_and_override_shown_loads(page: Path, tmp_path: Path) -> None:
    for call in shell_commands(page, "puna"):
        if call[0] == "run" and call[1] in files_shown(page):
            path = tmp_path / call[1]
            path.write_text(files_shown(page)[call[1]], encoding="utf-8")
        elif call[0] == "run":
            recipe = call[1]
            path = ROOT / recipe if recipe.endswith(".toml") else builtin_recipe(recipe)
        elif call[0] == "quickstart":
            path = builtin_recipe("sandbox_cpu")
        elif call[0] == "ablate":
            path = ROOT / call[1] if call[1].endswith(".toml") else builtin_recipe(f"ablations/{call[1]}")
            load_recipe(path, AblationRecipe, overrides_of(call))
            continue
        else:
            continue
        load_recipe(path, Figure4Recipe, overrides_of(call))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_settings_file_shown_fits_its_command(page: Path, tmp_path: Path) -> None:
    shown = files_shown(page)
    for call in shell_commands(page, "puna"):
        for name in [
            value for flag, value in itertools.pairwise(call) if flag == "--config" and value in shown
        ]:
            (tmp_path / name).write_text(shown[name], encoding="utf-8")
            load_settings(tmp_path / name, settings_of(call), overrides_of(call))


@pytest.mark.parametrize("text", snippets("toml"))
def test_every_toml_snippet_is_a_recipe(text: str, tmp_path: Path) -> None:
    if re.match(r"# \w+\.toml\n", text) and "[real" not in text:
        return  # the settings of one command: the test above
    if "[parallel" in text or "[evaluation_hooks" in text:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        load_recipe(tmp_path / "recipe.toml", PretrainingRecipe)
        return
    is_whole = "[real" in text
    path = tmp_path / "recipe.toml"
    if "[variants" in text:
        path.write_text(text, encoding="utf-8")
        load_recipe(path, AblationRecipe)
        return
    path.write_text(
        text if is_whole else f"base = {str(RECIPES['sandbox_cpu.toml'])!r}\n{text}", encoding="utf-8"
    )
    load_recipe(path, Figure4Recipe)


@pytest.mark.parametrize("text", snippets("python"))
def test_every_python_snippet_fits_the_api(text: str) -> None:
    tree = ast.parse(text)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("puna"):
            module = importlib.import_module(node.module or "")
            names |= {alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(names[node.func.id]).bind(*node.args, **given)


def test_readme_and_ci_run_the_same() -> None:
    """README's two commands, and what .ci/run installs and tests, once quiet flags and the CI's selection are off."""
    quickstart, tests = (block.strip() for block in blocks(README, "sh")[:2])
    assert "\n" not in quickstart + tests
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    installs = [
        [word for word in shlex.split(line)[2:] if not word.startswith("--")]
        for line in script
        if line.startswith("pip install")
    ]
    shown = [part.strip() for part in tests.split("&&")]
    assert [shlex.split(part)[2:] for part in shown[:-1]] == installs
    assert quickstart.startswith(f"pip install {installs[0][0]} && pip install . && puna quickstart ")
    runs = [line.removeprefix("python -m ") for line in script if re.match(r"(python -m )?pytest\b", line)]
    assert len(runs) == 1
    selection = runs[0].removeprefix(shown[-1].removeprefix("python -m "))
    assert selection in ("", ' -m "not slow and not gpu"'), "the rest is what conftest.py skips by itself"


def test_every_choice_of_ours_is_listed() -> None:
    listed = (
        (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8").partition("## Departures and choices")[2]
    )
    for path in sorted((ROOT / "src" / "puna").rglob("*.py")):
        if "our choice" in path.read_text(encoding="utf-8").lower():
            assert f"`{path.relative_to(ROOT).as_posix()}`" in listed


def test_every_table_and_figure_of_the_paper_is_on_the_map() -> None:
    text = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    for kind, last in (("Table", 52), ("Figure", 32)):
        found: set[int] = set()
        for numbers in re.findall(rf"{kind}s? (\d+(?:(?:, | and | to )\d+)*)", text):
            found |= {int(number) for number in re.findall(r"\d+", numbers)}
            for first, end in re.findall(r"(\d+) to (\d+)", numbers):
                found |= set(range(int(first), int(end) + 1))
        assert found >= set(range(1, last + 1)), sorted(set(range(1, last + 1)) - found)


def test_readme_is_short_and_lists_every_command() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) < 1200
    table = text.partition("## Commands")[2].partition("\n## ")[0]
    rows = [
        re.findall(r"`([^`]+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")
    ]
    listed: set[str] = set()
    for names in rows:
        group = ""
        for name in names:
            group = name.removeprefix("puna ").split()[0] if name.startswith("puna ") else group
            listed.add(name.removeprefix("puna ") if name.startswith("puna ") else f"{group} {name}")
    commands = PROGRAM.commands
    groups = {name: command.commands for name, command in commands.items() if hasattr(command, "commands")}
    alone = {name for name in commands if name not in groups}
    assert listed == alone | {f"{group} {name}" for group, names in groups.items() for name in names}


def test_the_index_lists_every_page_and_decision() -> None:
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)", (docs / "index.md").read_text(encoding="utf-8")))
    assert {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {"index.md"} <= linked


RIDDLES = re.compile(
    r"so-manieth|not as it should be|want an unknown thing|l(ie|ay) a fifth apart|full disks stop nothing"
    r"|\bdear in time|periods that are none|text is none|you can mend\b",
    re.IGNORECASE,
)
"""Phrases that readers stumbled over."""


def test_no_riddle_is_left() -> None:
    files = [*PAGES, *(ROOT / "src").rglob("*.py"), *(ROOT / "recipes").rglob("*.toml")]
    hits = {
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in files
        for match in RIDDLES.finditer(path.read_text(encoding="utf-8"))
    }
    assert hits == set()
