"""An interrupted pretraining goes on where it is the same one; nothing is thrown away in silence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.core.errors import ConfigError, DataError
from puna.core.manifest import fingerprint_input
from puna.core.storage import write_atomically
from puna.model.config import ModelConfig
from puna.pretraining.config import PretrainingConfig
from puna.training.checkpoints.folders import saved_states

__all__ = ["Request", "check_continuation", "read_changes", "write_request"]

REQUEST_FILE = "pretraining.json"

ONCE_SETTINGS = {"device"}
"""What an earlier version recorded with the settings and is the machine's now."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an interrupted run was asked for, and what was asked before."""

    values: dict[str, Any]
    """Settings by dotted key; the model's sizes under `model`; seed and inputs."""

    @classmethod
    def of(
        cls, config: PretrainingConfig, model: ModelConfig, inputs: Mapping[str, Path], seed: int
    ) -> "Request":
        """From what the command was given."""
        settings = config.model_dump(mode="json") | {"model": model.model_dump(mode="json")}
        fingerprints = {f"input {name}": fingerprint_input(path) for name, path in inputs.items()}
        return cls(dict(_flat(settings)) | fingerprints | {"seed": seed})


def check_continuation(partial: Path, request: Request, *, accepts_changes: bool) -> list[str]:
    """What differs from the interrupted run in this folder, as lines of text; none where there is none.

    Raises:
        ConfigError: the architecture differs, or anything else and changes were not accepted.
    """
    path = partial / "state" / REQUEST_FILE
    states = saved_states(partial / "state")
    if not states or not path.is_file():
        return []
    before = _read(path)["request"]
    differing = {
        key: (before.get(key, "nothing"), request.values.get(key, "nothing"))
        for key in {**before, **request.values}
        if key not in ONCE_SETTINGS and before.get(key, "nothing") != request.values.get(key, "nothing")
    }
    for key, (old, new) in differing.items():
        is_architecture = key.startswith("model.")
        if is_architecture or not accepts_changes:
            raise ConfigError(
                where=key,
                expected=f"{old}, as in the interrupted run with a state at {states[0].name}",
                got=str(new),
                fix=f"Give it back its value, choose another output folder, or remove {partial} to begin anew"
                + (
                    "." if is_architecture else "; puna pretrain --accept-changes goes on with the new value."
                ),
            )
    return [f"after {states[0].name}: {key} from {old} to {new}" for key, (old, new) in differing.items()]


def write_request(state: Path, request: Request, changes: list[str]) -> None:
    """Beside the training states, so that the next attempt can compare."""
    path = state / REQUEST_FILE
    earlier = read_changes(state)
    write_atomically(path, json.dumps({"request": request.values, "changes": earlier + changes}))


def read_changes(state: Path) -> list[str]:
    """Settings that changed on the way, in order; they stand in the manifest, which only knows the last ones."""
    path = state / REQUEST_FILE
    return list(_read(path)["changes"]) if path.is_file() else []


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"request": dict(content["request"]), "changes": list(content["changes"])}
    except (ValueError, KeyError, TypeError):
        raise DataError(
            where=str(path),
            expected="what the interrupted run was asked for",
            got="a damaged file",
            fix="Remove this file to go on without the comparison.",
        ) from None


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
        )
    return pairs
