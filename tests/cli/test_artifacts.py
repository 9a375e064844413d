"""`puna report` and `puna lineage` over a made-up run."""

import json
from pathlib import Path

import pytest

from synthetic_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "made-up")


def test_report_goes_where_it_is_told(say, run: Path, tmp_path: Path) -> None:
    said = say("report", run, "--out", tmp_path / "page", "--title", "Mine & yours", "--json")
    assert said.exit_code == 0, said.stderr
    page = Path(json.loads(said.stdout)["report"])
    assert page == tmp_path / "page" / "index.html"
    assert "Mine &amp; yours" in page.read_text(encoding="utf-8")


def test_lineage_prints_a_tree(say, run: Path) -> None:
    said = say("lineage", run / "sandbox")
    assert said.exit_code == 0
    assert said.stdout.startswith("sandbox: sandbox [")
    assert json.loads(say("lineage", run / "sandbox", "--json").stdout)["lineage"] == said.stdout.splitlines()


def test_lineage_checks_bytes_only_when_asked(say, run: Path) -> None:
    assert say("lineage", run / "sandbox", "--verify").exit_code == 0
