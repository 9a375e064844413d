"""Manifests tell a whole artifact from a damaged one."""

import json
import os
from pathlib import Path

import pytest

from puna.core.artifacts import read_manifest, verify
from puna.core.errors import CheckpointError, DataError
from small_artifacts import make


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make(tmp_path / "sft")


def test_missing_artifact_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(DataError, match=r"without manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_manifest_is_a_checkpoint_error(artifact: Path, share: float) -> None:
    path = artifact / "manifest.json"
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CheckpointError, match=r"manifest\.json: expected a whole manifest"):
        read_manifest(artifact)


def test_manifest_with_a_wrong_field_names_it(artifact: Path) -> None:
    values = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps(values | {"seed": "x"}))
    with pytest.raises(CheckpointError, match="seed: "):
        read_manifest(artifact)


def test_newer_schema_is_refused(artifact: Path) -> None:
    values = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(CheckpointError, match="upgrade"):
        read_manifest(artifact)


def test_verify_names_the_damaged_file(artifact: Path) -> None:
    (artifact / "model.bin").write_text("moO")
    verify(artifact, deep=False)
    with pytest.raises(CheckpointError, match=r"model\.bin: .*got other bytes"):
        verify(artifact)
    (artifact / "model.bin").write_text("m")
    with pytest.raises(CheckpointError, match="got 1 bytes"):
        verify(artifact, deep=False)
    (artifact / "model.bin").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        verify(artifact, deep=False)
