"""The manifest beside every artifact: what it is, what made it, from what, and how to tell it is whole."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from puna.core.config import Settings
from puna.core.errors import CheckpointError, DataError
from puna.core.fingerprint import hash_content, hash_file, hash_json

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "FileReference",
    "InputReference",
    "Manifest",
    "fingerprint_input",
    "read_manifest",
    "verify",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 2
"""2: machine settings left the settings, and choices joined them."""


class FileReference(Settings):
    """What one file of an artifact must be."""

    sha256: str
    size_bytes: int


class InputReference(Settings):
    """One thing an artifact was made from."""

    path: str
    """Relative to the artifact's folder when the input is an artifact (runs can be moved); else absolute."""
    fingerprint: str

    def locate(self, folder: Path) -> Path:
        """Where the input of the artifact in this folder is expected now."""
        return Path(os.path.normpath(folder.resolve() / self.path))


class Manifest(Settings):
    """The content of manifest.json."""

    kind: str
    """What the artifact is, such as model or preferences."""
    schema_version: int = SCHEMA_VERSION
    labels: dict[str, str] = Field(default_factory=dict)
    """What tells it from others of its kind, such as version = sft."""
    config: dict[str, Any]
    """Resolved settings, defaults included."""
    inputs: dict[str, InputReference]
    """By name; the members of a sequence are name.0, name.1 and so on."""
    code_version: str
    seed: int
    hardware: dict[str, Any]
    started: str
    """UTC, ISO 8601."""
    wall_seconds: float
    """Time of the attempt that finished; earlier, interrupted attempts are not in it."""
    peak_rss_bytes: int
    """Most memory the process had held by the end, earlier stages of the same process included."""
    metrics: dict[str, Any]
    """What the stage measured."""
    files: dict[str, FileReference]
    """By path relative to the folder; the manifest itself is not listed."""
    fingerprint: str
    """sha256 of everything that determines the content; see `stage_fingerprint`."""
    made_at: str = ""
    """Absolute path of the folder it was made as: a stage replaces its own artifact and no other."""


def stage_fingerprint(
    *, kind: str, labels: Mapping[str, str], config: Mapping[str, Any], inputs: Mapping[str, str], seed: int
) -> str:
    """sha256 of what determines an artifact: kind, schema, labels, settings, inputs' fingerprints, seed."""
    return hash_json([kind, SCHEMA_VERSION, dict(labels), dict(config), dict(inputs), seed])


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in a folder.

    Raises:
        DataError: there is no artifact.
        CheckpointError: its manifest is damaged, or a newer puna wrote it.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        got = "a folder without manifest.json" if folder.is_dir() else "no such folder"
        fix = "Check the path; unfinished artifacts have no manifest."
        raise DataError(where=str(folder), expected="a finished artifact", got=got, fix=fix)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            where=str(path),
            expected="a whole manifest",
            got=f"{field + ': ' if field else ''}{first['msg']}",
            fix="It is damaged: restore it, or delete this folder and run the stage again.",
        ) from None
    if manifest.schema_version > SCHEMA_VERSION:
        raise CheckpointError(
            where=str(path),
            expected=f"schema version {SCHEMA_VERSION} at most",
            got=str(manifest.schema_version),
            fix="A newer puna wrote it: upgrade puna.",
        )
    return manifest


def verify(folder: Path, *, deep: bool = True) -> Manifest:
    """Check that an artifact is whole and return its manifest.

    Args:
        deep: Compare the sha256 of every file; otherwise presence and size only.
    Raises:
        CheckpointError: names the first file that is missing or altered.
    """
    manifest = read_manifest(folder)
    for name, reference in manifest.files.items():
        path = folder / name
        got = None
        if not path.is_file():
            got = "no such file"
        elif path.stat().st_size != reference.size_bytes:
            got = f"{path.stat().st_size:,} bytes"
        elif deep and hash_file(path) != reference.sha256:
            got = "other bytes"
        if got is not None:
            raise CheckpointError(
                where=str(path),
                expected=f"the {reference.size_bytes:,} bytes recorded in {MANIFEST_NAME}",
                got=got,
                fix="The artifact is damaged: restore the file, or delete the folder and rerun its stage.",
            )
    return manifest


def fingerprint_input(path: Path) -> str:
    """Fingerprint of an artifact, or of any other file or folder by its content.

    An artifact's logs (metrics.jsonl, tensorboard) hold times and are left out: it is the same without.
    """
    if not (path / MANIFEST_NAME).is_file():
        return hash_content(path)
    manifest = verify(path, deep=False)
    return hash_json([manifest.fingerprint, content_hashes(manifest)])


def content_hashes(manifest: Manifest) -> dict[str, str]:
    """sha256 by file name, without the logs."""
    return {
        name: reference.sha256
        for name, reference in manifest.files.items()
        if name != "metrics.jsonl" and not name.startswith("tensorboard/")
    }
