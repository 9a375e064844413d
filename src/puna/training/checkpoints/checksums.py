"""sha256 of every file of a training state, written last and read first."""

import json
from collections.abc import Mapping
from pathlib import Path

from puna.core.fingerprint import hash_file
from puna.core.storage import sync

__all__ = ["CHECKSUMS_FILE", "damage", "hash_share", "write_checksums"]

CHECKSUMS_FILE = "checksums.json"


def hash_share(folder: Path, *, rank: int, size: int) -> dict[str, tuple[str, int]]:
    """sha256 and bytes of every size-th file, so that many processes hash a state together."""
    files = sorted(path for path in folder.iterdir() if path.name != CHECKSUMS_FILE)
    return {path.name: (hash_file(path), path.stat().st_size) for path in files[rank::size]}


def write_checksums(folder: Path, checksums: Mapping[str, tuple[str, int]]) -> None:
    """Seal a state."""
    path = folder / CHECKSUMS_FILE
    path.write_text(json.dumps(dict(sorted(checksums.items())), indent=1), encoding="utf-8")
    sync(path)


def damage(folder: Path, *, rank: int = 0, size: int = 1) -> str | None:
    """The first thing wrong with this process's part of a state, or None.

    Returns:
        A file's name and the reason: missing, other length, other bytes.
    """
    try:
        expected = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        entries = sorted((name, str(sha256), int(n_bytes)) for name, (sha256, n_bytes) in expected.items())
    except FileNotFoundError:
        return f"{CHECKSUMS_FILE} is missing"
    except (ValueError, AttributeError, TypeError, OSError):
        return f"{CHECKSUMS_FILE} cannot be read"
    for name, sha256, n_bytes in entries[rank::size]:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != n_bytes:
            return f"{name} has {path.stat().st_size:,} bytes, not {n_bytes:,}"
        if hash_file(path) != sha256:
            return f"{name} has other bytes than were written (sha256)"
    return None
