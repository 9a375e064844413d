"""The numbers in the boxes of Figure 4."""

from pathlib import Path

import pytest

from puna.reporting.run_folder import RunFolder
from puna.reporting.sections.pipeline import pipeline
from synthetic_run import artifact


@pytest.mark.parametrize(
    ("n_samples", "said"), [(1, "rejection sampling, 1 round"), (3, "rejection sampling, 3 rounds")]
)
def test_a_round_is_one_set_of_samples(tmp_path: Path, n_samples: int, said: str) -> None:
    """Ghost Attention tunes a model of its own without one."""
    for number in range(1, n_samples + 1):
        artifact(tmp_path / f"samples/v{number}", "samples", {"n_samples": 10})
        artifact(tmp_path / f"rlhf-v{number}", "model", {}, labels={"version": f"rlhf-v{number}"})
    gatt = f"rlhf-v{n_samples}-gatt"
    artifact(tmp_path / gatt, "model", {}, labels={"version": gatt})
    lines = pipeline(RunFolder.scan(tmp_path)).numbers["rlhf"]["lines"]
    assert lines[0] == said
