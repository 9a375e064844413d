"""Figure 5 from one run or several, and the account of what training cost."""

import math
from pathlib import Path
from typing import Any

import pytest

from puna.cli.main import main
from puna.reporting import build_report
from puna.reporting.run_folder import RunFolder
from puna.reporting.sections.curves import losses
from puna.reporting.sections.loss_curves import loss_by_tokens, thin
from puna.reporting.sections.order import ABLATION_SECTIONS, SECTIONS, sections_of
from synthetic_run import SYSTEM, artifact


def model(
    run: Path, n_parameters: int, *, floor: float, system: Any = None, version: str = "pretrained"
) -> None:
    train = [{"loss": floor + 6 * math.exp(-i / 8), "tokens": 4096 * (i + 1)} for i in range(60)]
    metrics = {"n_parameters": n_parameters, "flops_per_token": 6.0 * n_parameters}
    if system:
        metrics["system"] = system
    curves = {"train": train, "validation": [{"loss": floor + 0.1 + 3 / (i + 1)} for i in range(5)]}
    artifact(run / version, "model", metrics, labels={"version": version}, curves=curves)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in ("large", "small", "medium")]
    for folder, n, floor in zip(folders, (4_000_000, 500_000, 2_000_000), (1.5, 2.0, 1.7), strict=True):
        model(folder, n, floor=floor)
    return folders


def test_several_runs_share_one_plot_by_tokens_and_by_operations(runs: list[Path]) -> None:
    run = RunFolder.scan(runs[0], runs[1:])
    section = losses(run)
    drawing, table = section.blocks[:2]
    by_tokens, by_flops = drawing.figure.axes
    labels = [text.get_text() for text in by_tokens.get_legend().get_texts()]
    assert labels == ["small pretrained, 0.50 M", "medium pretrained, 2.00 M", "pretrained, 4.00 M"]
    smallest = by_tokens.lines[0].get_xdata()
    assert smallest[-1] == 60 * 4096
    assert by_flops.lines[0].get_xdata()[-1] == pytest.approx(60 * 4096 * 6 * 500_000)
    assert by_flops.get_xscale() == "log"
    assert [row[0].text for row in table.rows] == ["small pretrained", "medium pretrained", "pretrained"]
    assert table.rows[0][3].text == "7.37e+11"


def test_one_run_has_one_panel(runs: list[Path]) -> None:
    (drawing,) = losses(RunFolder.scan(runs[0])).blocks
    assert len(drawing.figure.axes) == 1
    dots = drawing.figure.axes[0].lines[1].get_xdata()
    assert list(dots) == [4096.0 * (i + 1) for i in range(5)], "held-out losses stand at their tokens"


def test_the_first_fall_does_not_flatten_the_rest(runs: list[Path]) -> None:
    (drawing,) = losses(RunFolder.scan(runs[0])).blocks
    low, high = drawing.figure.axes[0].get_ylim()
    assert low < 1.5 < high < 7.5


def test_logs_without_tokens_are_drawn_by_step(tmp_path: Path) -> None:
    curves = {"train": [{"loss": 3.0 - i / 10} for i in range(20)]}
    artifact(tmp_path / "base", "model", {}, labels={"version": "pretrained"}, curves=curves)
    run = RunFolder.scan(tmp_path)
    assert loss_by_tokens(run.models, name="x") == []
    (drawing,) = losses(run).blocks
    assert drawing.figure.axes[0].get_xlabel() == "step"


def test_the_command_draws_other_runs_beside(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["report", str(runs[0]), "--beside", str(runs[1]), "--beside", str(runs[2])])
    assert end.value.code == 0
    text = (runs[0] / "report" / "report.md").read_text()
    assert "| small pretrained | 0.50 M |" in text
    assert text.startswith(f"# puna: {runs[0].name}\n")
    with pytest.raises(SystemExit) as end:
        main(["report", str(runs[0]), "--beside", str(runs[0] / "nowhere")])
    assert end.value.code == 2
    assert "no such folder" in capsys.readouterr().err


def test_training_cost_is_told_with_its_source(tmp_path: Path) -> None:
    model(tmp_path / "run", 1_000_000, floor=2, system=SYSTEM)
    report = build_report(tmp_path / "run", tmp_path / "report", title="R")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| pretrained | 6,120 | 52.3 % | 3 min 20 s | 1.0 % | 5.0 % | 3.0 % | 3.00 GiB |" in text
    assert "| pretrained | 0.0123 kWh | 0.0052 kg | 1.1 | 0.385 | estimate: hours x 10 W (given) |" in text
    assert report["sections"]["training-cost"]["pretrained"]["mfu"] == 0.523


def test_a_page_has_the_sections_of_what_it_shows(runs: list[Path], tmp_path: Path) -> None:
    assert sections_of(RunFolder.scan(runs[0])) is SECTIONS
    labels = {"version": "pretrained-a", "ablation": "size", "variant": "a"}
    artifact(tmp_path / "ablated" / "a", "model", {}, labels=labels)
    assert sections_of(RunFolder.scan(tmp_path / "ablated")) is ABLATION_SECTIONS


def test_thinning_keeps_the_last_point_and_the_mean() -> None:
    xs, ys = thin([(float(i), float(i % 2)) for i in range(1000)])
    assert len(xs) <= 400
    assert xs[-1] == 999
    assert sum(ys) / len(ys) == pytest.approx(0.5, abs=0.01)


def test_a_report_drawn_again_keeps_its_heading(runs: list[Path]) -> None:
    build_report(runs[0], runs[0] / "report", title="A Llama from a recipe")
    for out in ("report", "elsewhere"):
        with pytest.raises(SystemExit):
            main(["report", str(runs[0]), "--out", str(runs[0] / out)])
        assert (runs[0] / out / "report.md").read_text().startswith("# A Llama from a recipe\n")
