"""Finds a run's artifacts and reads their small files; knows folders and manifests, not what they mean."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from puna.core.artifacts import Manifest, read_manifest
from puna.core.errors import DataError
from puna.core.metrics import read_metrics
from puna.core.records import open_text

__all__ = ["Artifact", "RunFolder", "last_version", "version_key"]

_UNKNOWN = 10_000
"""Rank of what is no version of the recipe."""


@dataclass(frozen=True)
class Artifact:
    """One finished stage output."""

    path: Path
    name: str
    """Path inside the run folder."""
    manifest: Manifest

    @property
    def kind(self) -> str:
        """What the artifact is, such as model or evaluation."""
        return self.manifest.kind

    @property
    def labels(self) -> dict[str, str]:
        """Version, role, round and the like."""
        return dict(self.manifest.labels)

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers the stage reported when it finished."""
        return dict(self.manifest.metrics)

    def has(self, file_name: str) -> bool:
        """Whether the artifact holds this file."""
        return (self.path / file_name).is_file()

    def rows(self, file_name: str) -> list[dict[str, Any]]:
        """A JSON Lines file as plain objects; empty when the artifact has no such file."""
        path = self.path / file_name
        return list(_json_lines(path)) if path.is_file() else []

    def document(self, file_name: str) -> dict[str, Any]:
        """A JSON file as one object; empty when absent."""
        path = self.path / file_name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def curve(self, name: str, split: str = "train") -> list[tuple[float, float]]:
        """(step, value) pairs of one logged metric."""
        path = self.path / "metrics.jsonl"
        rows = read_metrics(path) if path.is_file() else []
        return [
            (row["step"], row[name])
            for row in rows
            if row.get("split") == split and row.get(name) is not None
        ]


@dataclass(frozen=True)
class RunFolder:
    """All artifacts under one folder."""

    path: Path
    artifacts: tuple[Artifact, ...]
    beside: tuple["RunFolder", ...] = ()
    """Other runs, whose pretraining is drawn beside this one's."""

    @classmethod
    def scan(cls, path: Path, beside: Sequence[Path] = ()) -> "RunFolder":
        """Read every manifest below the folder; unfinished work lives in dot-folders and is passed over.

        Args:
            beside: Folders of other runs.
        Raises:
            DataError: there is no such folder, or it holds no artifact yet.
        """
        if not path.is_dir():
            raise DataError(
                where=str(path), expected="a run folder", got="no such folder", fix="Check the path."
            )
        found = [
            Artifact(folder, folder.relative_to(path).as_posix(), read_manifest(folder))
            for folder in sorted(_artifact_folders(path))
        ]
        kept = tuple(artifact for artifact in found if artifact.kind != "report")
        if not kept:
            raise DataError(
                where=str(path),
                expected="at least one finished artifact",
                got="none",
                fix="Run a recipe into this folder first.",
            )
        return cls(path, kept, tuple(cls.scan(other) for other in beside))

    def of_kind(self, kind: str, **labels: str) -> list[Artifact]:
        """Artifacts of this kind that carry these labels, by path."""
        return [
            artifact
            for artifact in self.artifacts
            if artifact.kind == kind and labels.items() <= artifact.labels.items()
        ]

    @cached_property
    def evaluations(self) -> dict[str, Artifact]:
        """The evaluation of each version, in the order of training."""
        found = {artifact.labels.get("version", ""): artifact for artifact in self.of_kind("evaluation")}
        return {version: found[version] for version in sorted(found, key=version_key)}

    @cached_property
    def models(self) -> dict[str, Artifact]:
        """The model of each version, in the order of training."""
        found = {artifact.labels.get("version", ""): artifact for artifact in self.of_kind("model")}
        return {version: found[version] for version in sorted(found, key=version_key)}

    @property
    def is_simulated(self) -> bool:
        """Whether any annotator or grader of this run is the sandbox's."""
        names = [
            name for pairs in self.of_kind("preferences") for name in pairs.metrics.get("annotators", {})
        ]
        return bool(self.of_kind("sandbox")) or any(name.startswith("simulated") for name in names)

    def input_of(self, artifact: Artifact, name: str) -> Artifact | None:
        """The artifact of this run that another one was made from, by the input's name."""
        reference = artifact.manifest.inputs.get(name)
        place = reference.locate(artifact.path) if reference else None
        return next((found for found in self.artifacts if found.path.resolve() == place), None)


def version_key(version: str) -> tuple[int, str]:
    """Training order: pretrained, the SFT models, then RLHF versions by number."""
    numbered = re.match(r"rlhf-v(\d+)", version)
    if numbered:
        return (10 + int(numbered[1]), version)
    return (0 if version.startswith("pretrained") else 1 if version.startswith("sft") else _UNKNOWN, version)


def last_version(versions: Iterable[str]) -> str | None:
    """The last version of the recipe; a model that is none of its versions counts only when there is no other."""
    ordered = sorted(versions, key=version_key)
    return max(
        ordered,
        key=lambda version: (version_key(version)[0] < _UNKNOWN, ordered.index(version)),
        default=None,
    )


def _artifact_folders(path: Path) -> Iterator[Path]:
    for folder, children, files in os.walk(path):
        children[:] = sorted(child for child in children if not child.startswith("."))
        if "manifest.json" in files:
            yield Path(folder)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    n_read = 0
    try:
        with open_text(path) as stream:
            for line in stream:
                if line.strip():
                    yield json.loads(line)
                n_read += 1
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            where=f"{path}, line {n_read + 1}",
            expected="one JSON object",
            got=str(error),
            fix="The artifact is damaged: delete its folder and run the recipe again.",
        ) from None
