"""Stages as functions to folders: built aside, published whole, skipped when unchanged, resumed when killed.

Beside `runs/sft` the build lives in `runs/.sft.partial`: `artifact` becomes the folder, `state` is what a
resumed build reads, `request` says which settings both belong to.
"""

import functools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from puna import __version__
from puna.core.config import Settings, resolve
from puna.core.devices import hardware, peak_rss_bytes
from puna.core.errors import CheckpointError, ConfigError, DataError
from puna.core.fingerprint import hash_file
from puna.core.locking import run_lock
from puna.core.machine import Machine
from puna.core.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileReference,
    InputReference,
    Manifest,
    fingerprint_input,
    read_manifest,
    stage_fingerprint,
    verify,
)
from puna.core.metrics import MetricsLog
from puna.core.progress import Reporter, quiet
from puna.core.storage import storage_errors, sync, write_atomically

__all__ = [
    "FileReference",
    "InputReference",
    "Manifest",
    "StageContext",
    "describe",
    "read_manifest",
    "run_lock",
    "run_stage",
    "verify",
]


@dataclass(kw_only=True, slots=True)
class StageContext:
    """What a build gets: where to write, where to keep resume state, and whom to tell."""

    folder: Path
    """Everything written here becomes the artifact; after a crash it holds what the last attempt left."""
    state: Path
    """Kept until the artifact is published; never part of it."""
    seed: int
    reporter: Reporter
    machine: Machine = field(default_factory=Machine)
    """Where to compute; no part of what is computed."""
    _metrics: MetricsLog | None = field(default=None, init=False)

    @property
    def device(self) -> torch.device:
        """Where every model of this stage is loaded and every tensor of it is made."""
        return self.machine.torch_device

    @property
    def out(self) -> Path:
        """Where the artifact will stand once it is published."""
        partial = self.folder.parent
        return partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))

    @property
    def metrics(self) -> MetricsLog:
        """The artifact's metrics.jsonl, opened at first use."""
        if self._metrics is None:
            self._metrics = MetricsLog(self.folder)
        return self._metrics

    def close(self) -> None:
        """Close what was opened."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """Everything that determines an artifact."""

    out: Path
    kind: str
    labels: dict[str, str]
    config: dict[str, Any]
    inputs: dict[str, InputReference]
    seed: int

    @property
    def fingerprint(self) -> str:
        fingerprints = {name: reference.fingerprint for name, reference in self.inputs.items()}
        return stage_fingerprint(
            kind=self.kind, labels=self.labels, config=self.config, inputs=fingerprints, seed=self.seed
        )


def run_stage(
    out: Path,
    *,
    kind: str,
    config: Settings,
    inputs: Mapping[str, Path | Sequence[Path]],
    seed: int,
    build: Callable[[StageContext], Mapping[str, Any]],
    choices: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
    machine: Machine | None = None,
    keeps_state: bool = False,
) -> Manifest:
    """Make the artifact `out`, unless it is there already from the same settings, inputs and seed.

    Args:
        choices: Plain JSON values that determine the artifact as the settings do; recorded with them.
        machine: Where the build computes; None is this machine's default device.
        build: Fills `context.folder` and returns metrics (plain JSON values). After a crash it is called
            again with the folder and state it left, and must end with the same content all the same.
        keeps_state: Go on from what an interrupted build left even where settings or code changed since; the
            build itself has made sure that it may.
    Raises:
        RunLockedError: another process builds it now.
        StorageError: the disk is full; an older artifact at `out` is untouched, and the next call resumes.
        DataError: an input is missing, or `out` holds something else than an artifact.
    """
    reporter = reporter or quiet()
    request = _request(out, kind, resolve(config) | dict(choices or {}), inputs, seed, labels or {})
    partial = request.out.with_name(f".{request.out.name}.partial")
    backup = request.out.with_name(f".{request.out.name}.old")
    if (manifest := _finished(request)) and not partial.exists() and not backup.exists():
        reporter.log(f"{kind} {out.name}: unchanged, skipped")
        return manifest
    with storage_errors(request.out), run_lock(partial):
        _tidy(request.out, backup)
        if manifest := _finished(request):
            reporter.log(f"{kind} {out.name}: unchanged, skipped")
            if keeps_state and _is_of_another_request(partial, request.fingerprint):
                reporter.log(f"an interrupted build of other settings is kept in {partial}")
                return manifest
        else:
            _refuse_to_replace(request)
            with reporter.stage(kind if kind == out.name else f"{kind} {out.name}"):
                _build(request, build, partial, backup, reporter, machine or Machine(), keeps_state)
            manifest = read_manifest(request.out)
        shutil.rmtree(partial)
    return manifest


def _request(
    out: Path,
    kind: str,
    config: dict[str, Any],
    inputs: Mapping[str, Path | Sequence[Path]],
    seed: int,
    labels: Mapping[str, str],
) -> _Request:
    out = out.resolve()
    paths: dict[str, Path] = {}
    for name, given in inputs.items():
        paths |= {name: given} if isinstance(given, Path) else {f"{name}.{i}": p for i, p in enumerate(given)}
    for name, path in paths.items():
        if path.resolve() == out:
            expected = f"an output folder other than the input {name}"
            raise ConfigError(where="out", expected=expected, got=str(out), fix="Choose another folder.")
    references = {name: _reference(path.resolve(), out) for name, path in paths.items()}
    return _Request(out=out, kind=kind, labels=dict(labels), config=config, inputs=references, seed=seed)


def _reference(path: Path, out: Path) -> InputReference:
    is_artifact = (path / MANIFEST_NAME).is_file()
    recorded = os.path.relpath(path, out) if is_artifact else str(path)
    return InputReference(path=recorded, fingerprint=fingerprint_input(path))


def _finished(request: _Request) -> Manifest | None:
    """The manifest at `out` when it is what was asked for and whole by size."""
    if not (request.out / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(request.out)
    if manifest.schema_version < SCHEMA_VERSION:
        raise CheckpointError(
            where=str(request.out),
            expected=f"an artifact of this version of puna (manifest schema {SCHEMA_VERSION})",
            got=f"one of an earlier version (schema {manifest.schema_version}), whose settings cannot be compared",
            fix="Its files can still be read. Give the run another output folder, or finish it with the version that "
            "began it.",
        )
    if manifest.fingerprint != request.fingerprint:
        return None
    try:
        return verify(request.out, deep=False)
    except CheckpointError:
        return None


def _tidy(out: Path, backup: Path) -> None:
    """Finish a replacement that was cut off, and refuse to replace what is not an artifact."""
    if backup.exists():
        if out.exists():
            shutil.rmtree(backup)
        else:
            backup.rename(out)
    is_foreign = out.is_dir() and not (out / MANIFEST_NAME).is_file() and any(out.iterdir())
    if is_foreign or out.is_file():
        raise DataError(
            where=str(out),
            expected="an artifact, an empty folder or nothing",
            got="a folder with other files" if is_foreign else "a file",
            fix="Choose another output folder: nothing here was changed.",
        )


def _refuse_to_replace(request: _Request) -> None:
    """Refuse to put this artifact in place of one that the same step did not make here.

    A run that was moved or copied as a whole is still its own: what its artifacts were made from came with them.
    """
    if not (request.out / MANIFEST_NAME).is_file():
        return
    old = read_manifest(request.out)
    is_same_step = (old.kind, old.labels.get("version")) == (request.kind, request.labels.get("version"))
    if is_same_step and (old.made_at == str(request.out) or _came_with_its_inputs(old, request.out)):
        return
    version = old.labels.get("version")
    raise DataError(
        where=str(request.out),
        expected=f"nothing, or the {request.kind} that this step made here before",
        got=f"another artifact ({old.kind}{f' {version}' if version else ''}), made as {old.made_at or 'unknown'}",
        fix="Choose another output folder, or move this one away: nothing here was changed.",
    )


def _came_with_its_inputs(manifest: Manifest, folder: Path) -> bool:
    """Whether everything an artifact was made from is where it expects it, and unchanged."""
    try:
        return bool(manifest.inputs) and all(
            fingerprint_input(reference.locate(folder)) == reference.fingerprint
            for reference in manifest.inputs.values()
        )
    except (DataError, CheckpointError):
        return False


def _build(
    request: _Request,
    build: Callable[[StageContext], Mapping[str, Any]],
    partial: Path,
    backup: Path,
    reporter: Reporter,
    machine: Machine,
    keeps_state: bool,
) -> None:
    started, began = datetime.now(UTC), time.monotonic()
    _prepare(partial, request.fingerprint, reporter, keeps_state)
    context = StageContext(
        folder=partial / "artifact",
        state=partial / "state",
        seed=request.seed,
        reporter=reporter,
        machine=machine,
    )
    try:
        metrics = build(context)
    finally:
        context.close()
    _describe(context.folder, request, started, time.monotonic() - began, metrics)
    _publish(context.folder, request.out, backup)


def _describe(
    folder: Path, request: _Request, started: datetime, seconds: float, metrics: Mapping[str, Any]
) -> None:
    manifest = Manifest(
        kind=request.kind,
        labels=request.labels,
        config=request.config,
        inputs=request.inputs,
        code_version=code_version(),
        seed=request.seed,
        hardware=hardware(),
        started=started.isoformat(timespec="seconds"),
        wall_seconds=round(seconds, 3),
        peak_rss_bytes=peak_rss_bytes(),
        metrics=dict(metrics),
        files=_seal(folder),
        fingerprint=request.fingerprint,
        made_at=str(request.out),
    )
    write_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")


def describe(
    folder: Path,
    *,
    out: Path,
    kind: str,
    labels: Mapping[str, str],
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    started: datetime,
    metrics: Mapping[str, Any],
) -> None:
    """Write the manifest of a folder that was built without `run_stage` and is about to become `out`.

    Args:
        config: Plain JSON values.
        started: In UTC.
    """
    out = out.resolve()
    references = {name: _reference(path.resolve(), out) for name, path in inputs.items()}
    request = _Request(
        out=out, kind=kind, labels=dict(labels), config=dict(config), inputs=references, seed=0
    )
    _describe(folder, request, started, (datetime.now(UTC) - started).total_seconds(), metrics)


def _prepare(partial: Path, fingerprint: str, reporter: Reporter, keeps_state: bool) -> None:
    """Keep what an interrupted build of the same request by the same code left; start afresh otherwise."""
    stamp_path = partial / "request"
    stamp = json.dumps([fingerprint, code_version(), torch.__version__])
    is_same = stamp_path.is_file() and stamp_path.read_text(encoding="utf-8") == stamp
    if is_same or (keeps_state and stamp_path.is_file()):
        reporter.log("continuing the interrupted build")
    else:
        stamp_path.unlink(missing_ok=True)
        for name in ("artifact", "state"):
            if (partial / name).exists():
                shutil.rmtree(partial / name)
    for name in ("artifact", "state"):
        (partial / name).mkdir(exist_ok=True)
    write_atomically(stamp_path, stamp)


def _is_of_another_request(partial: Path, fingerprint: str) -> bool:
    """Whether an interrupted build lies there that is not this one's."""
    stamp_path = partial / "request"
    return stamp_path.is_file() and json.loads(stamp_path.read_text(encoding="utf-8"))[0] != fingerprint


def _seal(folder: Path) -> dict[str, FileReference]:
    """Hash and sync every file of a built folder, without what a cut-off `write_atomically` left."""
    for torn in folder.rglob(".*.partial"):
        torn.unlink()
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST_NAME):
        sync(path)
        files[path.relative_to(folder).as_posix()] = FileReference(
            sha256=hash_file(path), size_bytes=path.stat().st_size
        )
    for inner in sorted(p for p in folder.rglob("*") if p.is_dir()):
        sync(inner)
    return files


def _publish(built: Path, out: Path, backup: Path) -> None:
    """Move the built folder into place; an older artifact steps aside for that moment only."""
    if out.exists():
        out.rename(backup)
    built.rename(out)
    sync(out.parent)
    if backup.exists():
        shutil.rmtree(backup)


@functools.cache
def code_version() -> str:
    """The package's version, with the commit when it runs from its own git checkout."""
    package = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(package), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return __version__
    toplevel, *commit = answer.stdout.splitlines()
    is_ours = (Path(toplevel) / "src" / "puna").resolve() == package
    return f"{__version__}+{commit[0]}" if is_ours and commit else __version__
