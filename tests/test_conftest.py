"""The ordinary run draws the same examples every time, whatever else the process has imported."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
DRAWN = """
from hypothesis import given, strategies as st

@given(st.lists(st.integers(0, 10**6), min_size=20), st.text())
def test_draws(numbers, text):
    print("drawn", numbers, text.encode("utf-8", "surrogatepass"))
"""


def drawn(folder: Path, *, beside: str, options: tuple[str, ...] = ()) -> list[str]:
    """What a test draws in a process of its own that imports something first."""
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "typechecks.py").write_text((TESTS / "typechecks.py").read_text(encoding="utf-8"))
    (folder / "constants.py").write_text(f"NUMBERS = {[123_457 + n for n in range(500)]}\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    fuzz: named\n")
    (folder / "test_drawing.py").write_text(f"{beside}\n{DRAWN}")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *options]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [line for line in result.stdout.splitlines() if line.startswith("drawn")]


def test_examples_do_not_depend_on_what_else_is_imported(tmp_path: Path) -> None:
    alone = drawn(tmp_path, beside="# nothing")
    assert len(alone) == 50
    assert drawn(tmp_path, beside="import constants") == alone


def test_the_fuzz_run_draws_more_and_anew(tmp_path: Path) -> None:
    """Two runs that agree on 200 lists of random length and numbers: odds of less than 1 in 10^100."""
    first, second = (drawn(tmp_path, beside="# nothing", options=("-m", "fuzz")) for _ in range(2))
    assert len(first) == len(second) == 200
    assert first != second
