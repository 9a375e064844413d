"""Where an artifact came from: the tree of artifacts and raw inputs that its manifests tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.core.manifest import MANIFEST_NAME, InputReference, fingerprint_input, read_manifest

__all__ = ["Lineage", "lineage"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where an artifact came from: a node of the tree that `lineage` returns."""

    name: str
    """The role it plays for the artifact above, or the folder's name at the root."""
    path: Path
    summary: str
    """Kind, labels and fingerprint, or what else is known."""
    inputs: tuple["Lineage", ...] = ()

    def render(self) -> str:
        """The tree as text; a path that was shown before is not unfolded again."""
        return "\n".join(self._lines("", "", set()))

    def _lines(self, first: str, rest: str, shown: set[Path]) -> list[str]:
        is_repeated = self.path in shown and bool(self.inputs)
        shown.add(self.path)
        lines = [
            f"{first}{self.name}: {self.summary}  {self.path}{'  (unfolded above)' if is_repeated else ''}"
        ]
        nodes: Sequence[Lineage] = () if is_repeated else self.inputs
        for node in nodes:
            is_last = node is nodes[-1]
            lines += node._lines(
                rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "), shown
            )
        return lines


def lineage(path: Path) -> Lineage:
    """The tree of artifacts and raw inputs an artifact was made from, read from the manifests."""
    return _artifact_lineage(path.resolve(), path.resolve().name, known={})


def _artifact_lineage(folder: Path, name: str, known: dict[Path, tuple[Lineage, ...]]) -> Lineage:
    manifest = read_manifest(folder)
    labels = "".join(f" {key}={value}" for key, value in sorted(manifest.labels.items()))
    summary = f"{manifest.kind}{labels} [{manifest.fingerprint[:12]}] seed {manifest.seed}"
    if folder not in known:
        known[folder] = ()
        known[folder] = tuple(
            _input_lineage(reference, role, folder, known) for role, reference in manifest.inputs.items()
        )
    return Lineage(name=name, path=folder, summary=summary, inputs=known[folder])


def _input_lineage(
    reference: InputReference, role: str, folder: Path, known: dict[Path, tuple[Lineage, ...]]
) -> Lineage:
    path = reference.locate(folder)
    short = f"[{reference.fingerprint[:12]}]"
    if not path.exists():
        return Lineage(name=role, path=path, summary=f"not here any more {short}")
    if not (path / MANIFEST_NAME).is_file():
        return Lineage(name=role, path=path, summary=f"{'folder' if path.is_dir() else 'file'} {short}")
    if fingerprint_input(path) != reference.fingerprint:
        return Lineage(name=role, path=path, summary=f"replaced since by another artifact {short}")
    return _artifact_lineage(path, role, known)
